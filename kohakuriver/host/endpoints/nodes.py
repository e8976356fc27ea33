"""Nodes: what runners say of themselves, and what admins do with them."""

import logging
import sqlite3
from dataclasses import replace

from kohakuriver import __version__
from kohakuriver.host.services.node_registry import LiveNode, resources_of, tell, tell_text, with_drain
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, changes, nodes, runner_keys, tasks
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.nodes import NodeRow
from kohakuriver.host.store.tasks import Change
from kohakuriver.model import host_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict, NotFound, RiverError
from kohakuriver.model.events import Kind, Step
from kohakuriver.model.host_api import Drain, Hostname
from kohakuriver.model.lifecycle import Desired, Event, Status
from kohakuriver.model.node import Node
from kohakuriver.model.report import Acknowledged, Changed, Heartbeat, Register, Registered, Report
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.serve import Encoded, on

log = logging.getLogger(__name__)


async def register(host: Host, caller: Caller, asked: Register) -> Registered:
    _refuse_twin(host, asked)
    known = host.registry.nodes.get(asked.hostname)
    row = NodeRow(
        hostname=asked.hostname,
        url=asked.url,
        version=asked.version,
        engine=asked.engine,
        engine_version=asked.engine_version,
        machine=asked.machine,
        registered_at=known.row.registered_at if known else rfc3339(host.clock.now()),
        draining=known.row.draining if known else False,
        drain_reason=known.row.drain_reason if known else "",
        tls_fingerprint=asked.tls_fingerprint,
    )
    if known is None or known.row != row:
        deed, now = Deed("node.register", f"node:{row.hostname}", row.url), host.clock.now()

        def save(tx: sqlite3.Connection) -> NodeRow:
            audit.record(tx, caller, deed, now)
            return _save_as_drained(tx, row)

        row = await host.db.write(save)
    node = host.registry.nodes.setdefault(asked.hostname, LiveNode(row, host.clock.monotonic()))
    node.row, node.warnings = row, tuple(asked.warnings)
    log.info("runner registered node=%s url=%s engine=%s version=%s", row.hostname, row.url, row.engine, row.version)
    part = await host.overlay.join(asked.hostname, asked.overlay)
    acknowledged = await _take(host, node, asked.report, asked.clock)
    return Registered(
        cluster_id=host.cluster_id,
        version=__version__,
        heartbeat_interval_seconds=host.settings.heartbeat_interval_seconds,
        acknowledged=acknowledged,
        overlay=part,
    )


def _save_as_drained(tx: sqlite3.Connection, row: NodeRow) -> NodeRow:
    """An admin may have drained it just now: what he said stays."""
    before = nodes.find(tx, row.hostname)
    kept = row if before is None else with_drain(row, before.draining, before.drain_reason)
    nodes.save(tx, kept)
    return kept


def _refuse_twin(host: Host, asked: Register) -> None:
    """A second runner of one name must not take over while the first one lives."""
    known = host.registry.nodes.get(asked.hostname)
    if known is None or not known.online or known.row.url == asked.url or known.instance == asked.report.instance:
        return
    if host.clock.monotonic() - known.seen < 2 * host.settings.heartbeat_interval_seconds and known.heard_at:
        raise Conflict(f"another runner named {asked.hostname} is alive at {known.row.url}")


async def heartbeat(host: Host, caller: Caller, asked: Heartbeat) -> Acknowledged:
    node = _registered(host, asked.hostname, asked.report)
    node.metrics, node.warnings = asked.metrics, tuple(asked.warnings)
    node.samples.extend(asked.samples)
    taken = await _take(host, node, asked.report, asked.clock)
    return replace(taken, overlay=await host.overlay.take_news(asked.hostname, asked.overlay))


async def report(host: Host, caller: Caller, asked: Changed) -> Acknowledged:
    return await _take(host, _registered(host, asked.hostname, asked.report), asked.report, None)


def _registered(host: Host, hostname: str, told: Report) -> LiveNode:
    """The node; raises NotFound when this life of its runner must introduce itself (or is over: a late report)."""
    node = host.registry.get(hostname)
    if not node.knows_life(told):
        raise NotFound(f"this life of node {hostname} is not registered")
    return node


async def _take(host: Host, node: LiveNode, told: Report, clock: float | None) -> Acknowledged:
    """A sign of life: its report goes into the rows before the node counts as online again.

    One that was overtaken by a later one says nothing of how the node is now.
    """
    async with node.taking:
        return await _take_news(host, node, told, clock) if node.is_news(told) else Acknowledged()


async def _take_news(host: Host, node: LiveNode, told: Report, clock: float | None) -> Acknowledged:
    if clock is not None:
        node.clock_skew_seconds = clock - host.clock.now()
    node.seen, node.heard_at = host.clock.monotonic(), host.clock.now()
    is_first = not node.reported
    acknowledged = await host.scheduler.update_task_status(node, told)
    came_back = not node.online
    node.online = node.reported = True
    await host.scheduler.tell_whether_there(node)
    if came_back:
        log.info("node is back node=%s", node.row.hostname)
    if came_back or is_first or acknowledged.ended:
        host.dispatch.wake.set()
    return acknowledged


async def list_nodes(host: Host, caller: Caller, asked: Nothing) -> Encoded[list[Node]]:
    resources = host.registry.resources(await host.db.read(tasks.live))
    texts = [tell_text(host.registry.nodes[name], resources[name]) for name in sorted(resources)]
    return Encoded(f"[{','.join(texts)}]")


async def show_node(host: Host, caller: Caller, asked: Hostname) -> Node:
    live = await host.db.read(lambda tx: tasks.live(tx, asked.hostname))
    node = host.registry.get(asked.hostname)
    return tell(node, resources_of([node], [row for row in live if row.holds])[asked.hostname])


async def drain(host: Host, caller: Caller, asked: Drain) -> Node:
    return await _set_drain(host, caller, asked.hostname, (True, asked.reason))


async def resume(host: Host, caller: Caller, asked: Hostname) -> Node:
    return await _set_drain(host, caller, asked.hostname, (False, ""))


async def _set_drain(host: Host, caller: Caller, hostname: str, wanted: tuple[bool, str]) -> Node:
    def change(tx: sqlite3.Connection) -> NodeRow:
        row = with_drain(nodes.get(tx, hostname), *wanted)
        nodes.save(tx, row)
        now = host.clock.now()
        audit.record(tx, caller, Deed(action, f"node:{hostname}", row.drain_reason), now)
        state = "draining" if row.draining else "resumed"
        changes.tell(
            tx, Kind.NODE, hostname, Step(at=rfc3339(now), state=state, by=caller.name, detail=row.drain_reason)
        )
        return row

    host.registry.get(hostname)
    action = "node.drain" if wanted[0] else "node.resume"
    row = await host.db.write(change)
    host.registry.get(hostname).row = row
    host.dispatch.wake.set()
    return await show_node(host, caller, Hostname(hostname=hostname))


async def delete(host: Host, caller: Caller, asked: Hostname) -> Nothing:
    """Only a silent node, and none with tasks that may still end; those asked to be killed there are gone for good."""
    node = host.registry.get(asked.hostname)
    if node.online:
        raise Conflict(f"node {asked.hostname} is online: stop its runner first")

    def forget(tx: sqlite3.Connection) -> None:
        nodes.get(tx, asked.hostname)
        now = host.clock.now()
        for row in tasks.live(tx, asked.hostname):
            if row.holds:
                raise Conflict(f"node {asked.hostname} still has task {row.task_id}; wait until it is lost")
            if row.status is Status.LOST and row.desired is Desired.KILL:
                change = Change(Event.KILLED, {"completed_at": rfc3339(now)}, "its node was deleted", caller.name)
                tasks.move(tx, tasks.get(tx, row.task_id), change, now)
        nodes.delete(tx, asked.hostname)
        runner_keys.delete(tx, asked.hostname)
        audit.record(tx, caller, Deed("node.delete", f"node:{asked.hostname}"), now)
        changes.tell(tx, Kind.NODE, asked.hostname, Step(at=rfc3339(now), state="deleted", by=caller.name))

    host.registry.nodes.pop(asked.hostname)  # first, so that nothing is placed there meanwhile
    try:
        await host.keys.commit(asked.hostname, forget)
    except RiverError:
        host.registry.nodes.setdefault(asked.hostname, node)
        raise
    return Nothing()


ANSWERS = [
    on(host_api.NODE_REGISTER, register),
    on(host_api.NODE_HEARTBEAT, heartbeat),
    on(host_api.NODE_REPORT, report),
    on(host_api.NODE_LIST, list_nodes),
    on(host_api.NODE_SHOW, show_node),
    on(host_api.NODE_DRAIN, drain),
    on(host_api.NODE_RESUME, resume),
    on(host_api.NODE_DELETE, delete),
]
