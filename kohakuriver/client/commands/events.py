"""`kohakuriver events`: what changes in the cluster, line by line."""

from dataclasses import replace
from typing import Any

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.output import safe
from kohakuriver.model import codec
from kohakuriver.model import host_api as api
from kohakuriver.model.errors import NotFound, Unavailable
from kohakuriver.model.events import EVENTS, Event, FollowEvents, Type

MORE = """\
examples:
  kohakuriver events
  kohakuriver events --object node
  kohakuriver events --object task:7205759403792794624
  kohakuriver --json events --since 0 | jq -r 'select(.type == "change") | .object'

You hear of nodes, environments, and of what you may see of tasks and VPS. Each change has a number, and
`--since` goes on behind one; the host keeps the last 50,000. `reload` says that some are missing there: look
at everything anew. When the host is away for a moment, it goes on where it was. It lasts until Ctrl-C.
"""


def show(order: Order) -> int:
    """Print a line for each message until interrupted; when the connection breaks, go on behind the last one."""
    import asyncio

    from kohakuriver.client.streams.following import follow

    members = {"object": order.parsed.object, "since": order.parsed.since}
    asked = codec.decode(FollowEvents, {name: value for name, value in members.items() if value is not None})
    rest = asked

    def tell(message: str) -> None:
        nonlocal rest
        event = codec.decode(Event, codec.loads(message), strict=False)
        rest = replace(rest, since=event.seq)
        if order.as_json:
            order.screen.json_line(codec.encode(event))
        elif event.type is Type.CHANGE:
            order.screen.line(line_of(event))
        elif event.type is Type.RELOAD:
            order.notes.warn(f"some changes before {event.seq} are not kept any more: look at everything anew")
        elif asked.since is None:
            order.notes.hint(f"following what changes after {event.seq}")
        order.screen.out.flush()

    order.session.close()
    try:
        asyncio.run(follow(order, EVENTS, lambda: rest, tell))
    except NotFound:
        raise Unavailable("this host has no feed of events: it is older than this command") from None
    return 0


def line_of(event: Event) -> str:
    """Number, time, thing, state, and what else is known."""
    entry = event.entry
    at = str(entry.get("at") or entry.get("ended_at") or entry.get("created_at") or "")[:19]
    state = entry.get("status") or entry.get("state")
    rest = [f"on {entry['node']}"] if entry.get("node") else []
    rest += [f"by {entry['by']}"] if entry.get("by") else []
    rest += [str(entry.get("detail") or entry.get("message") or "")]
    return safe(f"{event.seq:<8} {at} {event.object:<26} {state:<12} {' '.join(rest)}".rstrip())


COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "",
        api.HEALTHZ,
        act=show,
        about="What changes in the cluster, as it happens.",
        extra=(
            Flag(
                ("-o", "--object"),
                "Only about this: task, vps, node, environment, or one of them.",
                {"metavar": "KIND[:NAME]"},
            ),
            Flag(("--since",), "Go on behind this number.", {"metavar": "NUMBER", "type": int}),
        ),
        more=MORE,
    ),
)
