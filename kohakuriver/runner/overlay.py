"""The node's part of the overlay: bridge, tunnels, ways, rules and Docker's network, kept as the host wants them."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest, EngineFailed, NotFound, Unavailable
from kohakuriver.model.overlay import BRIDGE, VXLAN_OVERHEAD_BYTES, mac_of
from kohakuriver.model.overlay_part import OverlayNews, OverlayPart, OverlayWish, digest_of
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import overlay_plan as plan
from kohakuriver.runner.store import Store
from kohakuriver.system import netlink
from kohakuriver.system.addresses import address_towards
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_network import Attached, DockerNetworks
from kohakuriver.system.firewall import Firewall, has_guard
from kohakuriver.system.loops import Wake
from kohakuriver.system.network_plan import Port, Seen, Wanted, clashes, strangers
from kohakuriver.system.path_mtu import carries
from kohakuriver.system.port_guard import NOBODY, Guarded
from kohakuriver.system.veth import outer_end

log = logging.getLogger(__name__)
FACT = "overlay_part"
COMING_SECONDS = 600.0  # how long a container may take to start
SECOND_TRIES_SECONDS = (0.1, 0.5)
MOST_PROBED = 4  # peers whose way is tried; one that does not answer costs two seconds


class Overlay:
    """The part that the host gave, kept over restarts; `trouble` says why containers cannot use it, empty when they can."""

    def __init__(self, settings: RunnerSettings, store: Store, clock: Clock) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._part: OverlayPart | None = None
        self._made_for = ""
        self._firewall = Firewall(plan.FIREWALL_NAME)
        self._networks = DockerNetworks(settings.docker_socket)
        self._hands = ThreadPoolExecutor(1, "overlay")
        self._ends: dict[tuple[int, str], str] = {}
        self._inside: list[Guarded] = []
        self._coming: dict[Guarded, float] = {}
        self._narrow: list[str] = []
        self._probed_for: OverlayPart | None = None
        self.trouble = ""
        self.ready = False
        self.healed = 0
        self.changed = Wake()
        self.settled = Wake()

    async def restore(self) -> None:
        """Take up what the host gave before."""
        text = await self._store.fact(FACT)
        if text and self._settings.overlay_allowed:
            with suppress(BadRequest):  # of another release: the host gives it again
                self._part = codec.decode(OverlayPart, codec.loads(text), strict=False)

    def close(self) -> None:
        """Let go of the thread; the network stays as it is."""
        self._hands.shutdown(wait=True, cancel_futures=True)

    # ---- with the host

    def wish(self, host_address: str) -> OverlayWish | None:
        """That this node would join; None when it may not."""
        address = address_towards(host_address)
        if not self._settings.overlay_allowed or self._settings.engine != "docker" or not address:
            return None
        return OverlayWish(address=address, subnet=self._part.subnet if self._part else "")

    def news(self, host_address: str) -> OverlayNews | None:
        """How it is; None when there is none."""
        if self._part is None:
            return None
        return OverlayNews(
            address=address_towards(host_address),
            has=digest_of(self._part),
            ready=self.ready,
            trouble=self.trouble[:1000],
            healed=self.healed,
        )

    async def learn(self, part: OverlayPart | None) -> None:
        """Take over what the host wants; a host without an overlay takes nothing away."""
        if part is None or part == self._part or not self._settings.overlay_allowed:
            return
        await self._store.learn(FACT, codec.encode_text(part))
        self._part = part
        log.info("overlay part number=%d subnet=%s peers=%d", part.number, part.subnet, len(part.peers))
        self.changed.set()

    def warnings(self) -> list[str]:
        """What an admin should know."""
        found = [f"the overlay cannot be used: {self.trouble}"] if self._part and self.trouble else []
        found += self._narrow
        if self._part and not self.trouble and not has_guard():
            found.append("containers in the overlay could send under addresses of others: install nftables")
        return found

    # ---- with the kernel

    async def step(self) -> None:
        """Make kernel and Docker as the host wants them."""
        part = self._part
        if part is None:
            return
        try:
            healed = await self._make(part)
        except (Unavailable, EngineFailed) as failed:
            if self.trouble != str(failed):
                log.warning("the overlay cannot be used error=%s", failed)
            self.trouble, self.ready = str(failed), False
            return
        if not self.ready:
            log.info("the overlay can be used subnet=%s", part.subnet)
        if healed:
            log.warning("the overlay was not as it should be, and is again changes=%d", healed)
        self.healed += healed
        self.trouble, self.ready = "", True
        self.settled.set()
        if self._probed_for != part:
            self._narrow, self._probed_for = await asyncio.to_thread(_narrow_ways, part), part

    async def _make(self, part: OverlayPart) -> int:
        """As `_reconcile`; others change the firewall, too, so what goes wrong counts when it goes wrong again."""
        loop = asyncio.get_running_loop()
        for pause_seconds in SECOND_TRIES_SECONDS:
            with suppress(Unavailable, EngineFailed):
                return await loop.run_in_executor(self._hands, lambda: self._reconcile(part))
            await self._clock.sleep(pause_seconds)
        return await loop.run_in_executor(self._hands, lambda: self._reconcile(part))

    async def expect(self, address: str, owner_tag: int) -> None:
        """Let a container under this address through from its first moment on, before its port is known.

        Raises EngineFailed.
        """
        part, now = self._part, self._clock.monotonic()
        if part is None or not has_guard():
            return
        member = Guarded("", mac_of(IPv4Address(address)), address, owner_tag or NOBODY)
        try:
            await asyncio.get_running_loop().run_in_executor(self._hands, lambda: self._let_in(part, member, now))
        except Unavailable as failed:
            raise EngineFailed(f"the overlay lets it not in: {failed}", retry_elsewhere=True) from None

    def _let_in(self, part: OverlayPart, member: Guarded, now: float) -> None:
        """Whoever had the address before is gone."""
        self._inside = [each for each in self._inside if each.address != member.address]
        recent = {each: since for each, since in self._coming.items() if now - since < COMING_SECONDS}
        self._coming = {**recent, member: now}
        self._set_guard(part)

    def _set_guard(self, part: OverlayPart) -> None:
        known = {member.address for member in self._inside}
        self._coming = {each: since for each, since in self._coming.items() if each.address not in known}
        self._firewall.set_guard(plan.guard(part, [*self._inside, *self._coming]))

    def _reconcile(self, part: OverlayPart) -> int:
        """How many things were put right that had been right before; raises Unavailable, EngineFailed."""
        netlink.check_allowed()
        if part.is_isolated and not has_guard():
            raise Unavailable("containers of different owners cannot be kept apart here: install nftables")
        wanted = plan.wanted(part)
        with netlink.open_netlink() as kernel:
            seen = netlink.look(kernel, plan.MARK)
        _refuse_clash(IPv4Network(part.network), seen, wanted)
        changed = len(netlink.reconcile(wanted, seen)) + self._firewall.set_rules(plan.rules(part))
        changed += self._networks.ensure(plan.docker_network(part))
        self._inside = self._outer_ends(self._networks.attached(plan.OVERLAY_NETWORK))
        changed += netlink.attach({Port(end.device, BRIDGE) for end in self._inside})
        if has_guard():
            self._set_guard(part)
        before, self._made_for = self._made_for, digest_of(part)
        return changed if before == self._made_for else 0

    def _outer_ends(self, attached: list[Attached]) -> list[Guarded]:
        """The bridge ports behind which containers are; one that has just gone has none."""
        known, self._ends = self._ends, {}
        for each in attached:
            with suppress(NotFound):
                key = (each.pid, each.mac)
                self._ends[key] = known.get(key) or outer_end(each.pid, each.mac)
        return [
            Guarded(self._ends[a.pid, a.mac], a.mac, a.address, a.tag or NOBODY)
            for a in attached
            if (a.pid, a.mac) in self._ends
        ]


def _narrow_ways(part: OverlayPart) -> list[str]:
    """Warnings about machines to which full packets do not get through."""
    needed_bytes = part.mtu + VXLAN_OVERHEAD_BYTES
    machines = [] if part.is_hosts else [part.host_machine, *(peer.address for peer in part.peers[:MOST_PROBED])]
    return [
        f"the way to {machine} is too narrow for the overlay: it does not carry packets of {needed_bytes} bytes whole "
        "(lower OVERLAY_MTU on the host, or raise the MTU of the network)"
        for machine in filter(None, machines)
        if _is_narrow(machine, needed_bytes)
    ]


def _is_narrow(machine: str, needed_bytes: int) -> bool:
    """Whether that is certain; who may not ask (CAP_NET_RAW) does not know."""
    with suppress(PermissionError):
        return carries(machine, needed_bytes) is False
    return False


def _refuse_clash(network: IPv4Network, seen: Seen, wanted: Wanted) -> None:
    """Raise Unavailable when others have what is to be ours."""
    taken = strangers(wanted, seen)
    if taken:
        raise Unavailable(f"there is a device {', '.join(taken)} that is not ours")
    found = clashes(network, seen, plan.OWN_SIDE)
    if found:
        raise Unavailable(f"the overlay {network} overlaps with what this machine has: {'; '.join(found[:3])}")
