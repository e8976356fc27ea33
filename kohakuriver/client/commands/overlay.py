"""The commands of `kohakuriver node …` about the overlay network and addresses in it."""

from collections.abc import Iterator
from typing import Any

from kohakuriver.client import overlay_view as view
from kohakuriver.client.command import Command, Order
from kohakuriver.client.flags import Spelling
from kohakuriver.model import overlay_api as api
from kohakuriver.model.runner_api import Nothing

ONE = {"runner": Spelling("node", metavar="NODE", complete="node")}
TOKEN = {"token": Spelling(metavar="TOKEN")}
RESERVE_MORE = """
examples:
  token=$(kohakuriver node ip-reserve --node n1)
  kohakuriver task submit --reserve-ip "$token" -- python master.py
"""


def show_status(order: Order, status: api.OverlayStatus) -> Iterator[str]:
    return view.status_lines(order.screen, status)


def show_released(order: Order, released: api.Released) -> Iterator[str]:
    for name in released.runners:
        yield f"{name}  its part of the overlay is free"
    if not released.runners:
        order.notes.hint("no silent node has a part of the overlay that nobody needs")


def show_reserved(order: Order, reserved: api.Reserved) -> Iterator[str]:
    """The token alone on standard output, so that it can be handed on."""
    order.notes.hint(f"{reserved.ip} on {reserved.runner} is yours until {reserved.expires_at}")
    yield reserved.token


def show_nothing(order: Order, nothing: Nothing) -> Iterator[str]:
    yield from ()


def show_reservations(order: Order, found: list[api.Reservation]) -> Iterator[str]:
    return view.reservation_lines(order.screen, found, order.clock.now())


def show_available(order: Order, found: list[api.AvailableAddresses]) -> Iterator[str]:
    return view.available_lines(order.screen, found)


def show_info(order: Order, info: api.AddressInfo) -> Iterator[str]:
    return view.info_lines(order.screen, info)


COMMANDS: tuple[Command[Any, Any], ...] = (
    Command("overlay", api.OVERLAY_STATUS, show=show_status),
    Command("overlay-release", api.OVERLAY_RELEASE, show=show_released, many=True, spelled=ONE),
    Command("overlay-cleanup", api.OVERLAY_CLEANUP, show=show_released),
    Command(
        "ip-reserve",
        api.IP_RESERVE,
        show=show_reserved,
        about="Hold an address for a task; prints the token by which the task claims it.",
        spelled={**ONE, "ip": Spelling(metavar="ADDRESS"), "ttl_seconds": Spelling("ttl")},
        more=RESERVE_MORE,
    ),
    Command("ip-release", api.IP_RELEASE, show=show_nothing, spelled=TOKEN),
    Command("ip-list", api.IP_RESERVATIONS, show=show_reservations),
    Command("ip-info", api.IP_INFO, show=show_info, many=True, spelled=ONE),
    Command("ip-available", api.IP_AVAILABLE, show=show_available, spelled=ONE),
)
