"""Lists that come page by page: one page, or all of them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from kohakuriver.client.command import Flag, Order
from kohakuriver.client.output import Table
from kohakuriver.model.fields import bounds_of

ALL = Flag(("--all",), "Page through everything; --limit has no effect then.")
PAGE = 1000


def list_pages(order: Order, table: Table[Any]) -> int:
    """Print one page, or with --all every page."""
    values = order.values()
    everything = order.has("all")
    if everything:
        values["limit"] = int(bounds_of(_member(order, "limit")).most or PAGE)
    request = order.request(values)
    found: list[Any] = []
    for plain in _pages(order, request) if everything else [order.session.ask(order.command.route, request)]:
        if order.as_json:
            found += plain
        else:
            order.screen.lines(table.lines(order.session.understand(order.command.route, plain)))
            found = plain[-1:] if len(plain) == request.limit else []
    if order.as_json:
        order.screen.json(found)
    elif found and not everything:
        order.notes.hint(f"older ones: --before {found[-1]['task_id']}, or --all")
    return 0


def _member(order: Order, name: str) -> "dataclasses.Field[Any]":
    return next(m for m in order.command.form.fields() if m.name == name)


def _pages(order: Order, request: Any) -> Iterator[list[Any]]:
    """Page after page, newest first, until one is not full."""
    while True:
        plain = order.session.ask(order.command.route, request)
        yield plain
        if len(plain) < request.limit:
            return
        request = dataclasses.replace(request, before=int(plain[-1]["task_id"]))
