"""`kohakuriver audit`: the trail, newest first, or all of it as JSON lines."""

from typing import Any

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.flags import Spelling
from kohakuriver.model import auth_api as api
from kohakuriver.model.units import parse_seconds, rfc3339


def read_trail(order: Order) -> int:
    """Print one page, or with --export everything."""
    values = order.values()
    since: str | None = values.get("since")
    if since and "T" not in since:
        values["since"] = _ago(order, since)
    if order.has("export"):
        return _export(order, values)
    request = order.request(values)
    plain = order.session.ask(api.TRAIL, request)
    order.answer(plain, lambda: _show(order, order.session.understand(api.TRAIL, plain), request.limit))
    return 0


def _ago(order: Order, text: str) -> str:
    try:
        return rfc3339(order.clock.now() - parse_seconds(text))
    except ValueError:
        return text  # the request's own check says what a time looks like


def _show(order: Order, entries: list[api.AuditEntry], limit: int) -> None:
    from kohakuriver.client.auth_view import trail_table

    order.screen.lines(trail_table(order.screen).lines(entries))
    if len(entries) == limit:
        order.notes.hint(f"older ones: --before {entries[-1].entry_id}")


def _export(order: Order, values: dict[str, Any]) -> int:
    wanted = {name: value for name, value in values.items() if name in api.TRAIL_EXPORT.field_names}
    request = api.ExportTrail(**wanted)
    with order.session.stream(api.TRAIL_EXPORT, request) as stream:
        for chunk in stream.chunks():
            order.screen.out.buffer.write(chunk)
    order.screen.out.flush()
    return 0


COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "",
        api.TRAIL,
        act=read_trail,
        about="Who did what to what, newest first (admins).",
        spelled={
            "user": Spelling(flag="u"),
            "object": Spelling(flag="o", metavar="KIND:NAME"),
            "since": Spelling(about="Only from then on: 2h, 7d, or an RFC 3339 time.", metavar="TIME"),
            "before": Spelling(about="Only entries older than this one.", metavar="ENTRY"),
            "limit": Spelling(flag="l"),
        },
        extra=(Flag(("--export",), "Everything, oldest first, one JSON object a line; --limit has no effect then."),),
        also=(api.TRAIL_EXPORT,),
    ),
)
