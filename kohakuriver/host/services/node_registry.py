"""The nodes as the host knows them just now: what is registered, and what the last heartbeats said.

What is registered comes from the store; what heartbeats said can be thrown away at any instant.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kohakuriver.host.services.node_manager import (
    Holding,
    NodeResources,
    get_node_available_cores,
    get_node_available_gpus,
    get_node_available_memory,
)
from kohakuriver.host.store.nodes import NodeRow
from kohakuriver.host.store.tasks import Live
from kohakuriver.model import codec
from kohakuriver.model.errors import NotFound
from kohakuriver.model.node import Metrics, Node, NodeStatus, Sample
from kohakuriver.model.report import Report, WorkloadState
from kohakuriver.model.units import rfc3339

HISTORY_SECONDS = 60


@dataclass(slots=True)
class LiveNode:
    """One node: its row, and what was heard of it last (`seen` is monotonic seconds).

    `reported` stands when a report of it is in the rows: before that nobody knows what is free there. `taking` lets
    one report in at a time, so that a later one is never overtaken by an earlier one on its way into the rows.
    """

    row: NodeRow
    seen: float
    online: bool = True
    reported: bool = False
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    heard_at: float = 0.0
    metrics: Metrics = field(default_factory=Metrics)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=HISTORY_SECONDS))
    clock_skew_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    watch_warnings: tuple[str, ...] = ()
    orphans: tuple[WorkloadState, ...] = ()  # of which no row knows
    instance: str = ""
    sequence: int = -1
    store: str = ""
    told: NodeStatus | None = None  # what was written down last of whether it is there
    output_bytes: dict[int, tuple[int, int]] = field(default_factory=dict)
    busy: dict[int, bool] = field(default_factory=dict)  # by VPS, whether something works in it
    preparing: dict[int, str] = field(default_factory=dict)  # by task, what its attempt waits for
    shown_for: tuple[object, ...] = ()
    shown: str = ""

    def is_news(self, report: Report) -> bool:
        """Whether the report is newer than the last one."""
        if report.instance == self.instance and report.sequence <= self.sequence:
            return False
        self.instance, self.sequence, self.store = report.instance, report.sequence, report.store
        return True

    def knows_life(self, report: Report) -> bool:
        """Whether the report is of the runner's life that registered last (or of any, when none has since our start)."""
        return self.instance in ("", report.instance)

    @property
    def closed(self) -> str:
        """Why it takes no new tasks; empty text when it does."""
        if not self.online:
            return "offline"
        if not self.reported:
            return "not heard of yet"
        return f"draining{f' ({self.row.drain_reason})' if self.row.drain_reason else ''}" if self.row.draining else ""


class NodeRegistry:
    """All nodes by name."""

    def __init__(self, rows: Iterable[NodeRow], now_monotonic: float) -> None:
        self.nodes = {row.hostname: LiveNode(row, now_monotonic) for row in rows}

    def get(self, hostname: str) -> LiveNode:
        """One node; raises NotFound."""
        try:
            return self.nodes[hostname]
        except KeyError:
            raise NotFound(f"there is no node {hostname}") from None

    def listen_anew(self, now_monotonic: float) -> None:
        """Hold no silence so far against a node that was heard before."""
        for node in self.nodes.values():
            if node.online:
                node.seen = now_monotonic

    def resources(self, live: Iterable[Live]) -> dict[str, NodeResources]:
        """Every node with what is free on it, as placement needs it."""
        return resources_of(self.nodes.values(), (row for row in live if row.holds))


def resources_of(nodes: Iterable[LiveNode], live: Iterable[Live]) -> dict[str, NodeResources]:
    """These nodes with what is left on them by these rows, as placement needs it."""
    found = {node.row.hostname: _resources(node) for node in nodes}
    for row in live:
        node = found.get(row.node)
        if node is not None:
            gpus = frozenset(codec.loads(row.gpus)) if row.gpus != "[]" else frozenset()
            node.take(Holding((-row.priority, row.task_id), row.cores, row.memory_bytes, gpus))
    return found


def _resources(node: LiveNode) -> NodeResources:
    machine = node.row.machine
    return NodeResources(
        hostname=node.row.hostname,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
        gpus=frozenset(gpu.index for gpu in machine.gpus),
        numa_nodes=frozenset(numa.index for numa in machine.numa_nodes),
        memory_used_bytes=node.metrics.memory_used_bytes,
        closed=node.closed,
    )


def tell(node: LiveNode, resources: NodeResources) -> Node:
    """A node as people see it."""
    row, machine = node.row, node.row.machine
    return Node(
        hostname=row.hostname,
        url=row.url,
        status=NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE,
        version=row.version,
        engine=row.engine,
        engine_version=row.engine_version,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
        gpus=machine.gpus,
        numa_nodes=machine.numa_nodes,
        architecture=machine.architecture,
        draining=row.draining,
        drain_reason=row.drain_reason,
        cores_free=get_node_available_cores(resources),
        memory_free_bytes=get_node_available_memory(resources),
        gpus_free=tuple(get_node_available_gpus(resources)),
        tasks_running=len(resources.holdings),
        metrics=node.metrics,
        clock_skew_seconds=round(node.clock_skew_seconds, 3),
        warnings=(*node.warnings, *node.watch_warnings),
        registered_at=row.registered_at,
        last_heartbeat_at=rfc3339(node.heard_at) if node.heard_at else "",
    )


def tell_text(node: LiveNode, resources: NodeResources) -> str:
    """The same as JSON, made anew only when something about the node changed."""
    key = (
        node.row,
        node.online,
        node.heard_at,
        node.metrics,
        node.warnings,
        node.watch_warnings,
        resources.cores_taken,
        resources.memory_taken_bytes,
        frozenset(resources.gpus_taken),
        len(resources.holdings),
    )
    if node.shown_for != key:
        node.shown_for, node.shown = key, codec.encode_text(tell(node, resources))
    return node.shown


def with_drain(row: NodeRow, draining: bool, reason: str) -> NodeRow:
    return replace(row, draining=draining, drain_reason=reason)


def online(nodes: Mapping[str, LiveNode]) -> Sequence[LiveNode]:
    """The nodes that are heard of."""
    return [node for node in nodes.values() if node.online]
