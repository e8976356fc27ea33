"""How the overlay and the addresses held in it are shown to a person."""

from collections.abc import Iterator, Sequence

from kohakuriver.client.output import Column, Screen, Style, Table, field_lines
from kohakuriver.model import overlay_api as api
from kohakuriver.model.units import show_seconds, unix_seconds


def status_lines(screen: Screen, status: api.OverlayStatus) -> Iterator[str]:
    """The overlay in a few lines, and a table of the nodes."""
    if not status.enabled:
        yield "this cluster has no overlay network (OVERLAY_ENABLED is off on the host)"
        return
    state = status.trouble or "ready"
    yield from field_lines(
        screen,
        [
            ("overlay", f"{status.network}, {status.topology}, MTU {status.mtu}"),
            ("host", f"{status.host_address}, {state}"),
            ("nodes", f"{len(status.runners)} of {status.runners_most}"),
        ],
    )
    yield ""
    yield from Table(_runner_columns(), screen).lines(status.runners)


def _runner_columns() -> list[Column[api.OverlayRunner]]:
    return [
        Column("NODE", lambda r: r.hostname),
        Column("STATUS", _word, style=lambda r: Style.GOOD if r.active and r.ready else Style.WARN),
        Column("SUBNET", lambda r: r.subnet),
        Column("MACHINE", lambda r: r.machine, leaves=1),
        Column("DEVICE", lambda r: r.device or "-", leaves=2),
        Column("USED", lambda r: str(r.addresses_used), right=True, leaves=3),
        Column("NOTE", lambda r: r.trouble, least=12, leaves=4),
    ]


def _word(runner: api.OverlayRunner) -> str:
    if not runner.active:
        return "silent"
    return "ready" if runner.ready else "not ready"


def reservation_lines(screen: Screen, found: Sequence[api.Reservation], now: float) -> Iterator[str]:
    """Addresses held, and for whom."""
    columns: list[Column[api.Reservation]] = [
        Column("ADDRESS", lambda r: r.ip),
        Column("NODE", lambda r: r.runner),
        Column("OWNER", lambda r: r.owner),
        Column("TASK", lambda r: r.task_id or "-"),
        Column("LEFT", lambda r: _left(r, now), right=True),
    ]
    return Table(columns, screen).lines(found)


def _left(reservation: api.Reservation, now: float) -> str:
    if reservation.expires_at is None:
        return "-"
    return show_seconds(max(0.0, unix_seconds(reservation.expires_at) - now))


def available_lines(screen: Screen, found: Sequence[api.AvailableAddresses]) -> Iterator[str]:
    """How many addresses are free, and some of them."""
    for each in found:
        yield from field_lines(screen, [(each.runner, f"{each.free} free"), ("", list(each.addresses))])


def info_lines(screen: Screen, info: api.AddressInfo) -> Iterator[str]:
    """The addresses of one node."""
    return field_lines(
        screen,
        [
            ("node", info.runner),
            ("subnet", f"{info.subnet}, gateway {info.gateway}"),
            ("addresses", f"{info.free} free of {info.capacity}, {info.reserved} reserved, {info.in_use} in use"),
        ],
    )
