"""The overlay for people: how it is, addresses held in it, parts taken back."""

import sqlite3
from ipaddress import IPv4Address

from kohakuriver.host.services.overlay.manager import device_of
from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit
from kohakuriver.host.store import overlay as rows
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import overlay_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict
from kohakuriver.model.overlay_part import OverlayNews
from kohakuriver.model.reservation import Claim
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.serve import on


def refuse_without_overlay(host: Host) -> None:
    """Raise Conflict when this cluster has none."""
    if not host.overlay.enabled:
        raise Conflict("this cluster has no overlay network (OVERLAY_ENABLED is off on the host)")


async def status(host: Host, caller: Caller, asked: Nothing) -> api.OverlayStatus:
    overlay, used = host.overlay, await host.db.read(rows.used)
    return api.OverlayStatus(
        enabled=overlay.enabled,
        topology=host.settings.overlay_topology,
        network=str(overlay.ranges.network),
        host_address=str(overlay.ranges.host),
        mtu=host.settings.overlay_mtu,
        runners_most=overlay.ranges.most_runners,
        trouble=overlay.trouble,
        healed=overlay.healed,
        runners=[_tell(host, allocation, sum(used.get(allocation.number, (0, 0)))) for allocation in _known(host)],
    )


def _known(host: Host) -> list[OverlayAllocation]:
    return sorted(host.overlay.allocations.values(), key=lambda allocation: allocation.number)


def _tell(host: Host, allocation: OverlayAllocation, used: int) -> api.OverlayRunner:
    node, subnet = host.registry.nodes.get(allocation.hostname), host.overlay.ranges.subnet(allocation.number)
    news = host.overlay.news.get(allocation.hostname, OverlayNews(trouble="not heard of yet"))
    return api.OverlayRunner(
        hostname=allocation.hostname,
        number=allocation.number,
        subnet=str(subnet.network),
        gateway=str(subnet.gateway),
        host_address=str(subnet.host),
        machine=allocation.machine,
        device=device_of(allocation, host.overlay),
        active=node is not None and node.online,
        ready=news.ready,
        trouble=news.trouble,
        addresses_used=used,
        healed=news.healed,
    )


async def release(host: Host, caller: Caller, asked: api.RunnerName) -> api.Released:
    refuse_without_overlay(host)
    await host.overlay.release(asked.runner)
    await _record(host, caller, "overlay.release", [asked.runner])
    return api.Released(runners=[asked.runner])


async def cleanup(host: Host, caller: Caller, asked: Nothing) -> api.Released:
    refuse_without_overlay(host)
    released = await host.overlay.cleanup()
    await _record(host, caller, "overlay.cleanup", released)
    return api.Released(runners=released)


async def _record(host: Host, caller: Caller, action: str, released: list[str]) -> None:
    deed, now = Deed(action, ",".join(f"node:{name}" for name in released)), host.clock.now()
    await host.db.write(lambda tx: audit.record(tx, caller, deed, now))


async def available(host: Host, caller: Caller, asked: api.WhichRunner) -> list[api.AvailableAddresses]:
    refuse_without_overlay(host)
    overlay = host.overlay
    names = [asked.runner] if asked.runner else [a.hostname for a in _known(host)]
    subnets = [overlay.ranges.subnet(overlay.number_of(name)) for name in names]
    used = await host.db.read(rows.used)
    free = await host.db.read(lambda tx: [rows.first_free(tx, subnet, asked.limit) for subnet in subnets])
    return [
        api.AvailableAddresses(
            runner=name,
            free=subnet.capacity - sum(used.get(subnet.number, (0, 0))),
            addresses=[str(address) for address in addresses],
        )
        for name, subnet, addresses in zip(names, subnets, free, strict=True)
    ]


async def reservations(host: Host, caller: Caller, asked: Nothing) -> list[api.Reservation]:
    found = await host.db.read(lambda tx: rows.reservations(tx, None if caller.sees_all else caller.name))
    names = {allocation.number: allocation.hostname for allocation in _known(host)}
    return [
        api.Reservation(
            ip=str(IPv4Address(row.address)),
            runner=names.get(row.number, ""),
            owner=row.owner,
            task_id=None if row.task_id is None else str(row.task_id),
            expires_at=None if row.expires_at is None else rfc3339(row.expires_at),
        )
        for row in found
    ]


async def stats(host: Host, caller: Caller, asked: Nothing) -> api.ReservationStats:
    used = await host.db.read(rows.used)
    reserved, in_use = (sum(pair[i] for pair in used.values()) for i in (0, 1))
    room = sum(host.overlay.ranges.subnet(allocation.number).capacity for allocation in _known(host))
    return api.ReservationStats(reserved=reserved, in_use=in_use, free=room - reserved - in_use)


async def info(host: Host, caller: Caller, asked: api.RunnerName) -> api.AddressInfo:
    refuse_without_overlay(host)
    subnet = host.overlay.ranges.subnet(host.overlay.number_of(asked.runner))
    reserved, in_use = (await host.db.read(rows.used)).get(subnet.number, (0, 0))
    return api.AddressInfo(
        runner=asked.runner,
        subnet=str(subnet.network),
        gateway=str(subnet.gateway),
        capacity=subnet.capacity,
        free=subnet.capacity - reserved - in_use,
        reserved=reserved,
        in_use=in_use,
    )


async def reserve(host: Host, caller: Caller, asked: api.Reserve) -> api.Reserved:
    refuse_without_overlay(host)
    now = host.clock.now()

    def hold(tx: sqlite3.Connection) -> tuple[Claim, str]:
        claim, token = host.reservations.reserve(tx, caller.name, asked, now)
        audit.record(tx, caller, Deed("overlay.ip.reserve", f"address:{claim.ip}", f"on {claim.runner}"), now)
        return claim, token

    claim, token = await host.db.write(hold)
    return api.Reserved(ip=claim.ip, runner=claim.runner, token=token, expires_at=rfc3339(claim.exp))


async def let_go(host: Host, caller: Caller, asked: api.ReservationToken) -> Nothing:
    def free(tx: sqlite3.Connection) -> None:
        claim = host.reservations.release(tx, caller.name, asked.token)
        audit.record(tx, caller, Deed("overlay.ip.release", f"address:{claim.ip}"), host.clock.now())

    await host.db.write(free)
    return Nothing()


async def validate(host: Host, caller: Caller, asked: api.ReservationToken) -> api.Validity:
    return await host.db.read(lambda tx: host.reservations.validate(tx, caller.name, asked.token))


ANSWERS = [
    on(api.OVERLAY_STATUS, status),
    on(api.OVERLAY_RELEASE, release),
    on(api.OVERLAY_CLEANUP, cleanup),
    on(api.IP_AVAILABLE, available),
    on(api.IP_RESERVATIONS, reservations),
    on(api.IP_STATS, stats),
    on(api.IP_INFO, info),
    on(api.IP_RESERVE, reserve),
    on(api.IP_RELEASE, let_go),
    on(api.IP_VALIDATE, validate),
]
