"""Finds nodes that have gone silent: they are offline, and what they ran is lost."""

import logging
from dataclasses import dataclass

from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.task_scheduler import TaskScheduler
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.units import show_seconds
from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Wake

log = logging.getLogger(__name__)


@dataclass(slots=True)
class HealthCheck:
    """The loop's step; ages are measured on the monotonic clock, so a stepped clock loses no node.

    A host that was itself stopped for so long (by a signal, with its machine) has heard nobody meanwhile, and lets
    every node have its full time from now.
    """

    settings: HostSettings
    registry: NodeRegistry
    scheduler: TaskScheduler
    clock: Clock
    dispatch_wake: Wake
    checked_at: float | None = None

    @property
    def period_seconds(self) -> float:
        """Seconds between steps: shorter than a silence that matters, or each step would look like a standstill."""
        return min(self.settings.cleanup_check_interval_seconds, self._silence_seconds / 3)

    @property
    def _silence_seconds(self) -> float:
        return self.settings.heartbeat_timeout_factor * self.settings.heartbeat_interval_seconds

    async def step(self) -> None:
        """Mark every silent node and give up on its tasks, until that is done for each."""
        silence = self._silence_seconds
        now = self.clock.monotonic()
        if self.checked_at is not None and now - self.checked_at > silence:
            log.warning("the host itself stood still seconds=%.1f", now - self.checked_at)
            self.registry.listen_anew(now)
        self.checked_at = now
        self.scheduler.outbox.prune(now)
        for hostname, node in list(self.registry.nodes.items()):
            if now - node.seen <= silence:
                continue
            if node.online:
                node.online = False
                log.warning("node went offline node=%s silent_seconds=%.1f", hostname, now - node.seen)
            await self.scheduler.tell_whether_there(node)
            lost = await self.scheduler.give_up_on(hostname, f"node {hostname} was silent for {show_seconds(silence)}")
            if lost:
                log.warning("tasks of an offline node given up node=%s tasks=%d", hostname, lost)
                self.dispatch_wake.set()
