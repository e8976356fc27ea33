"""`kohakuriver node …`: every command about nodes and the cluster."""

from collections.abc import Iterator
from typing import Any

from kohakuriver.client import node_view as view
from kohakuriver.client.command import Command, Flag, Order, show_nothing, shown, shown_now
from kohakuriver.client.commands import overlay
from kohakuriver.client.flags import Spelling, by_id, whole_id
from kohakuriver.client.output import Screen, fitted
from kohakuriver.client.watching import INTERVAL, Picture, watch
from kohakuriver.model import host_api as api
from kohakuriver.model import join_api
from kohakuriver.model.errors import NotFound
from kohakuriver.model.node import Node, NodeStatus
from kohakuriver.model.runner_api import Nothing

ONE = {"hostname": Spelling(metavar="NODE", complete="node")}
STATUS = Flag(
    ("-s", "--status"), "Only in this status.", {"choices": [str(s) for s in NodeStatus], "metavar": "STATUS"}
)


def list_nodes(order: Order) -> int:
    """Print the nodes."""
    picture = _nodes(order)
    order.answer(picture.plain, lambda: order.screen.lines(picture.lines(order.screen)))
    return 0


def watch_nodes(order: Order) -> int:
    """Show the nodes again and again."""
    return watch(order, lambda: _nodes(order, totals=True))


def _nodes(order: Order, totals: bool = False) -> Picture:
    answer = order.session.ask(api.NODE_LIST, Nothing())
    wanted = order.parsed.status
    nodes = [n for n in order.session.understand(api.NODE_LIST, answer) if wanted in (None, n.status)]
    plain = [n for n in answer if wanted in (None, n["status"])]

    def lines(screen: Screen) -> list[str]:
        heading = [fitted(screen, view.totals_line(nodes)), ""] if totals else []
        return [*heading, *view.node_lines(screen, nodes, order.clock.now())]

    return Picture(plain, lines)


def health(order: Order) -> int:
    """Print the last minute of every node, or of one."""
    plain = order.session.ask(api.HEALTH, Nothing())
    nodes = order.session.understand(api.HEALTH, plain).nodes
    wanted = order.parsed.node
    if wanted:
        plain = next((n for n in plain["nodes"] if n["hostname"] == wanted), None)
        nodes = [n for n in nodes if n.hostname == wanted]
    if not plain:
        raise NotFound(f"there is no node {wanted}: `kohakuriver node list` shows them")
    order.answer(plain, lambda: order.screen.lines(view.health_lines(order.screen, nodes)))
    return 0


def show_change(order: Order, node: Node) -> Iterator[str]:
    """What a node that was told something does now."""
    running = f", {node.tasks_running} still run" if node.draining and node.tasks_running else ""
    yield f"{node.hostname}  {view.status_word(node)}{running}"


def show_revoked(order: Order, nothing: Nothing) -> Iterator[str]:
    order.notes.hint("the name stays closed until a machine joins under it again; `node delete` forgets it")
    yield from ()


def show_join_token(order: Order, created: join_api.CreatedJoinToken) -> Iterator[str]:
    """The token alone on standard output; it is never shown again."""
    made = created.made
    order.notes.hint(
        f"for {made.uses if made.node is None else made.node} until {made.expires_at}, and shown this once; on the "
        f"node: kohakuriver runner join {order.session.settings.host} TOKEN"
    )
    yield created.token


ORPHANS_MORE = """\
After an old database was restored, a node may have workloads that the host has no record of. They go on, and nothing
of them is lost; nobody can reach them through this host. `orphan remove` ends one and takes away all that is kept of
it, snapshots too.
"""
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command("list", api.NODE_LIST, act=list_nodes, extra=(STATUS,)),
    Command(
        "status", api.NODE_SHOW, show=shown_now(view.node_detail), about="All about a node.", many=True, spelled=ONE
    ),
    Command(
        "health",
        api.HEALTH,
        act=health,
        about="The last minute of the nodes.",
        extra=(Flag(("node",), "Only this one.", {"nargs": "?", "metavar": "NODE"}, complete="node"),),
    ),
    Command("summary", api.HEALTH, show=shown(view.summary_lines)),
    Command(
        "watch", api.NODE_LIST, act=watch_nodes, about="The nodes, looked at again and again.", extra=(STATUS, INTERVAL)
    ),
    Command("drain", api.NODE_DRAIN, show=show_change, many=True, spelled=ONE),
    Command("resume", api.NODE_RESUME, show=show_change, many=True, spelled=ONE),
    Command("delete", api.NODE_DELETE, show=show_nothing, many=True, spelled=ONE),
    Command("orphan list", api.NODE_ORPHANS, show=shown_now(view.orphan_lines), spelled=ONE, more=ORPHANS_MORE),
    Command(
        "orphan remove",
        api.NODE_ORPHAN_REMOVE,
        show=show_nothing,
        spelled=ONE | {"task_id": Spelling(metavar="ID", parse=whole_id)},
        more=ORPHANS_MORE,
    ),
    Command("revoke", join_api.NODE_REVOKE, show=show_revoked, many=True, spelled=ONE),
    Command("rotate-key", join_api.NODE_ROTATE_KEY, show=show_nothing, many=True, spelled=ONE),
    Command(
        "token create",
        join_api.JOIN_TOKEN_CREATE,
        show=show_join_token,
        about="A token by which machines join; prints it, this once.",
        spelled={"uses": Spelling(flag="n"), "ttl_seconds": Spelling("ttl"), "node": Spelling(complete="node")},
    ),
    Command("token list", join_api.JOIN_TOKEN_LIST, show=shown_now(view.join_token_lines)),
    Command(
        "token revoke",
        join_api.JOIN_TOKEN_REVOKE,
        show=show_nothing,
        many=True,
        spelled=by_id("join_id", "TOKEN"),
    ),
    *overlay.COMMANDS,
)
