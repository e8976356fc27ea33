"""Watches runners for what heartbeats alone do not show: skewed clocks, other releases, attempts that never arrive."""

import logging
from dataclasses import dataclass

from kohakuriver import __version__
from kohakuriver.host.services.node_registry import LiveNode, NodeRegistry
from kohakuriver.host.services.task_scheduler import TaskScheduler
from kohakuriver.host.store import tasks
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.units import show_seconds
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
SKEW_WARN_SECONDS = 5.0
ASSIGNING_TOO_LONG_SECONDS = 120.0


@dataclass(slots=True)
class RunnerMonitor:
    """The loop's step; `first_seen` remembers since when (monotonic) an attempt has been on its way."""

    db: Database
    registry: NodeRegistry
    scheduler: TaskScheduler
    clock: Clock
    first_seen: dict[tuple[int, int], float]

    async def step(self) -> None:
        """Work out each node's warnings anew; log those that are new."""
        stuck = await self._assigning_too_long()
        for hostname, node in list(self.registry.nodes.items()):
            warnings = (*warnings_of(node), *stuck.get(hostname, ()))
            for text in set(warnings) - set(node.watch_warnings):
                log.warning("runner needs a look node=%s warning=%s", hostname, text)
            node.watch_warnings = warnings

    async def _assigning_too_long(self) -> dict[str, list[str]]:
        now = self.clock.monotonic()
        rows = [row for row in await self.db.read(tasks.to_be_ordered) if row.status is Status.ASSIGNING]
        self.first_seen = {key: self.first_seen.get(key, now) for key in ((r.task_id, r.attempt) for r in rows)}
        found: dict[str, list[str]] = {}
        for row in rows:
            age = now - self.first_seen[row.task_id, row.attempt]
            if age > ASSIGNING_TOO_LONG_SECONDS:
                found.setdefault(row.node, []).append(
                    f"task {row.task_id} has been starting for more than {show_seconds(ASSIGNING_TOO_LONG_SECONDS)}"
                )
        return found


def warnings_of(node: LiveNode) -> list[str]:
    """What an admin should know of a node."""
    found = []
    if abs(node.clock_skew_seconds) > SKEW_WARN_SECONDS:
        found.append(f"its clock is {node.clock_skew_seconds:+.0f}s off the host's")
    if node.row.version != __version__:
        found.append(f"it runs release {node.row.version}, the host {__version__}")
    if node.orphans:
        show = f"kohakuriver node orphan list {node.row.hostname}"
        found.append(f"{len(node.orphans)} workloads that the host knows nothing of ({show})")
    return found
