"""The commands of `kohakuriver node …` about the overlay network and addresses in it."""

from collections.abc import Iterator
from typing import Any

from kohakuriver.client import overlay_view as view
from kohakuriver.client.command import Command, Order, show_nothing, shown, shown_now
from kohakuriver.client.flags import Spelling
from kohakuriver.model import overlay_api as api

ONE = {"runner": Spelling("node", metavar="NODE", complete="node")}
TOKEN = {"token": Spelling(metavar="TOKEN")}
RESERVE_MORE = """
examples:
  token=$(kohakuriver node ip-reserve --node n1)
  kohakuriver task submit --reserve-ip "$token" -- python master.py
"""


def show_released(order: Order, released: api.Released) -> Iterator[str]:
    for name in released.runners:
        yield f"{name}  its part of the overlay is free"
    if not released.runners:
        order.notes.hint("no silent node has a part of the overlay that nobody needs")


def show_reserved(order: Order, reserved: api.Reserved) -> Iterator[str]:
    """The token alone on standard output, so that it can be handed on."""
    order.notes.hint(f"{reserved.ip} on {reserved.runner} is yours until {reserved.expires_at}")
    yield reserved.token


COMMANDS: tuple[Command[Any, Any], ...] = (
    Command("overlay", api.OVERLAY_STATUS, show=shown(view.status_lines)),
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
    Command("ip-list", api.IP_RESERVATIONS, show=shown_now(view.reservation_lines)),
    Command("ip-info", api.IP_INFO, show=shown(view.info_lines), many=True, spelled=ONE),
    Command("ip-available", api.IP_AVAILABLE, show=shown(view.available_lines), spelled=ONE),
)
