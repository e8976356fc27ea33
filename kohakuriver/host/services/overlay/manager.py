"""The host's overlay: gives runners their parts, and keeps the host's kernel as these parts need it."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import TypeVar

from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.overlay import models, recovery, routing, vxlan
from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.host.store import overlay as rows
from kohakuriver.model.errors import Conflict, NotFound, Unavailable
from kohakuriver.model.overlay import Ranges, host_device, parse_ranges
from kohakuriver.model.overlay_part import OverlayNews, OverlayPart, OverlayPeer, OverlayWish, digest_of
from kohakuriver.model.settings import HostSettings
from kohakuriver.system import netlink
from kohakuriver.system.addresses import address_towards
from kohakuriver.system.clock import Clock
from kohakuriver.system.firewall import Firewall
from kohakuriver.system.loops import Wake
from kohakuriver.system.network_plan import Address, Seen, Wanted, clashes, strangers
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
R = TypeVar("R")


@dataclass(slots=True)
class OverlayNetworkManager:
    """The overlay of one host; `trouble` says why its kernel is not as it should be, empty when it is.

    What the runners last said of their parts (`news`) and what only the kernel remembers (`orphans`) may be lost at
    any instant.
    """

    settings: HostSettings
    db: Database
    registry: NodeRegistry
    clock: Clock
    wake: Wake = field(default_factory=Wake)
    ranges: Ranges = field(init=False)
    allocations: dict[str, OverlayAllocation] = field(default_factory=dict)
    orphans: list[OverlayAllocation] = field(default_factory=list)
    news: dict[str, OverlayNews] = field(default_factory=dict)
    here: frozenset[str] = frozenset()
    trouble: str = ""
    healed: int = 0
    _made_for: object = None
    _firewall: Firewall = field(default_factory=lambda: Firewall(routing.FIREWALL_NAME))
    _hands: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "overlay"))
    _joining: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.ranges = parse_ranges(self.settings.overlay_subnet)

    @property
    def enabled(self) -> bool:
        return self.settings.overlay_enabled

    async def load(self) -> None:
        """Take over what the store has, and what only the kernel still knows."""
        if not self.enabled:
            return
        await self.db.write(lambda tx: rows.forget_other_networks(tx, self.ranges))
        await self._reload()
        try:
            seen = await self._do(_look)
        except Unavailable as blind:
            self.trouble = str(blind)
            return
        self.here = _own_addresses(seen)
        self.orphans = recovery.recovered(self.ranges, seen, vxlan.MARK, self.allocations.values())
        for orphan in self.orphans:
            log.warning("the kernel serves a runner that the store does not know number=%d", orphan.number)

    def close(self) -> None:
        """Let go of the thread; the network stays as it is."""
        self._hands.shutdown(wait=True, cancel_futures=True)

    # ---- runners

    async def join(self, hostname: str, wish: OverlayWish | None) -> OverlayPart | None:
        """The part of a runner that introduces itself, None when it has none; raises TooMany when there is no room."""
        if not self.enabled or wish is None:
            return None
        async with self._joining:
            known = self.allocations.get(hostname)
            if known is None or known.machine != wish.address:
                await self._allocate(hostname, wish)
        return self.part_of(hostname)

    def part_of(self, hostname: str) -> OverlayPart | None:
        """What a runner must know; None when it has no part."""
        own = self.allocations.get(hostname)
        if own is None or not self.enabled:
            return None
        is_mesh = self.settings.overlay_topology == "mesh" and own.machine not in self.here
        return OverlayPart(
            number=own.number,
            network=str(self.ranges.network),
            subnet=str(self.ranges.subnet(own.number).network),
            host_machine=address_towards(own.machine),
            is_hosts=own.machine in self.here,
            vni=self.settings.overlay_vxlan_id + own.number,
            mesh_vni=self.settings.overlay_vxlan_id if is_mesh else 0,
            port=self.settings.overlay_vxlan_port,
            mtu=self.settings.overlay_mtu,
            is_isolated=self.settings.overlay_isolation == "owner",
            peers=self._peers_of(own) if is_mesh else [],
        )

    async def take_news(self, hostname: str, news: OverlayNews | None) -> OverlayPart | None:
        """Hear how a runner's part is; gives the part it should have when it has another."""
        if news is None or hostname not in self.allocations:
            return None
        self.news[hostname] = news
        if news.address:
            await self.join(hostname, OverlayWish(address=news.address))
        part = self.part_of(hostname)
        return part if digest_of(part) != news.has else None

    def is_ready(self, hostname: str) -> bool:
        """Whether containers there can have addresses in the overlay; yes while the runner has not said otherwise.

        A runner whose part is not made yet lets them wait.
        """
        news = self.news.get(hostname)
        return self.enabled and hostname in self.allocations and (news is None or not news.trouble)

    def number_of(self, hostname: str) -> int:
        """Which part a runner has; raises NotFound."""
        if hostname not in self.allocations:
            raise NotFound(f"node {hostname} has no part of the overlay")
        return self.allocations[hostname].number

    def hostname_of(self, number: int) -> str:
        """Whose a part is; raises NotFound."""
        for allocation in self.allocations.values():
            if allocation.number == number:
                return allocation.hostname
        raise NotFound(f"no node has the part {number} of the overlay")

    async def release(self, hostname: str) -> None:
        """Take back the part of a silent runner; raises NotFound, Conflict."""
        self.number_of(hostname)
        if self._is_online(hostname):
            raise Conflict(f"node {hostname} is online and uses its part of the overlay")
        if not await self.db.write(lambda tx: self._give_back(tx, self.allocations[hostname])):
            raise Conflict(f"node {hostname} may still have tasks, or addresses there are reserved")
        await self._reload()

    async def cleanup(self) -> list[str]:
        """Take back the parts of all silent runners that have no workloads; gives their names."""
        silent = [a for name, a in sorted(self.allocations.items()) if not self._is_online(name)]

        def give_back(tx: sqlite3.Connection) -> list[str]:
            return [a.hostname for a in silent if self._give_back(tx, a)]

        released = await self.db.write(give_back)
        self.orphans = []
        await self._reload()
        return released

    def _give_back(self, tx: sqlite3.Connection, allocation: OverlayAllocation) -> bool:
        if rows.is_busy(tx, allocation):
            return False
        rows.delete_allocation(tx, allocation.number)
        return True

    async def _allocate(self, hostname: str, wish: OverlayWish) -> None:
        now = self.clock.now()

        def allocate(tx: sqlite3.Connection) -> OverlayAllocation:
            taken = {a.hostname: a for a in rows.allocations(tx)}
            if hostname in taken:
                allocation = replace(taken[hostname], machine=wish.address, used_at=now)
            else:
                unsure = [o for o in self.orphans if o.machine != wish.address]
                number = models.choose_number(
                    self.ranges,
                    [*taken.values(), *unsure],
                    wish.subnet,
                    lambda a: a not in unsure and not self._is_online(a.hostname) and not rows.is_busy(tx, a),
                )
                allocation = OverlayAllocation(number, hostname, wish.address, now)
                rows.delete_allocation(tx, number)
            rows.save_allocation(tx, allocation)
            return allocation

        made = await self.db.write(allocate)
        self.orphans = [orphan for orphan in self.orphans if orphan.number != made.number]
        await self._reload()
        log.info("overlay part given node=%s number=%d machine=%s", hostname, made.number, made.machine)

    async def _reload(self) -> None:
        self.allocations = {a.hostname: a for a in await self.db.read(rows.allocations)}
        self.wake.set()

    def _is_online(self, hostname: str) -> bool:
        node = self.registry.nodes.get(hostname)
        return node is not None and node.online

    def _peers_of(self, own: OverlayAllocation) -> list[OverlayPeer]:
        return [
            OverlayPeer(subnet=str(self.ranges.subnet(other.number).network), address=other.machine)
            for other in self.allocations.values()
            if other != own and other.machine not in self.here and self._is_online(other.hostname)
        ]

    # ---- the kernel

    async def step(self) -> None:
        """Make the host's kernel as the parts need it."""
        if not self.enabled:
            return
        online = [name for name in self.allocations if self._is_online(name)]
        now = self.clock.now()
        await self.db.write(lambda tx: rows.touch(tx, online, now))
        try:
            healed = await self._do(self._reconcile)
        except Unavailable as failed:
            if self.trouble != str(failed):
                log.warning("the overlay is not as it should be error=%s", failed)
            self.trouble = str(failed)
            return
        self.healed += healed
        self.trouble = ""

    def _reconcile(self) -> int:
        """How many things were put right that had been right before; raises Unavailable."""
        netlink.check_allowed()
        seen = _look()
        self.here = _own_addresses(seen)
        allocations = [*self.allocations.values(), *self.orphans]
        wanted = vxlan.wanted(self.settings, self.ranges, allocations, self.here)
        _refuse_clash(self.ranges.network, seen, wanted)
        changed = len(netlink.reconcile(wanted, seen))
        machines = models.members(allocations, self.here)
        changed += self._firewall.set_rules(routing.rules(self.settings, self.ranges, machines))
        before, self._made_for = self._made_for, wanted
        return changed if before == self._made_for else 0

    async def _do(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._hands, work)


def device_of(allocation: OverlayAllocation, manager: OverlayNetworkManager) -> str:
    """The host's device towards a runner; empty where none is needed."""
    return "" if allocation.machine in manager.here else host_device(allocation.number)


def _look() -> Seen:
    with netlink.open_netlink() as kernel:
        return netlink.look(kernel, vxlan.MARK)


def _own_addresses(seen: Seen) -> frozenset[str]:
    return frozenset(thing.address for thing in seen.things if isinstance(thing, Address))


def _refuse_clash(network: IPv4Network, seen: Seen, wanted: Wanted) -> None:
    """Raise Unavailable when others have what is to be ours."""
    taken = strangers(wanted, seen)
    if taken:
        raise Unavailable(f"there is a device {', '.join(taken)} that is not ours")
    found = clashes(network, seen, vxlan.OWN_SIDE)
    if found:
        raise Unavailable(f"OVERLAY_SUBNET {network} is in use on this machine: {'; '.join(found[:3])}")
