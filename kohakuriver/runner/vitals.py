"""How the node feels: readings of its machine, second by second, and what its admin should know."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from kohakuriver.model.node import Machine, Metrics, Sample
from kohakuriver.model.units import show_bytes
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.workloads import Workloads

log = logging.getLogger(__name__)
KEPT_SAMPLES = 120  # what one heartbeat may carry
DISK_NEARLY_FULL = 0.95
MAX_WARNING_CHARACTERS = 1000


class Senses(Protocol):
    """What reads a machine; tests make machines up."""

    async def machine(self) -> Machine:
        """What the machine has."""

    async def sample(self) -> Metrics:
        """How it feels now."""


class Vitals:
    """The latest metrics, and the seconds that the host has not heard of."""

    def __init__(self, bench: Bench, senses: Senses) -> None:
        self._bench, self._senses = bench, senses
        self.metrics = Metrics()
        self._unsent: deque[Sample] = deque(maxlen=KEPT_SAMPLES)

    async def machine(self) -> Machine:
        """What the machine has; raises Unavailable when that cannot be learned."""
        return await self._senses.machine()

    async def sample(self) -> None:
        """Take one reading."""
        self.metrics = await self._senses.sample()
        self._unsent.append(_sample(self.metrics, self._bench.clock.now()))

    def unsent(self) -> list[Sample]:
        """The readings since the last ones that arrived."""
        return list(self._unsent)

    def arrived(self, samples: Sequence[Sample]) -> None:
        """The host has these."""
        while samples and self._unsent and self._unsent[0].at <= samples[-1].at:
            self._unsent.popleft()

    def warnings(self, workloads: Workloads) -> list[str]:
        """What an admin should know, in whole sentences."""
        bench, metrics = self._bench, self.metrics
        found = []
        if workloads.trouble:
            found.append(f"the engine ({bench.settings.engine}) does not answer: {workloads.trouble}")
        if metrics.disk_total_bytes and metrics.disk_used_bytes >= DISK_NEARLY_FULL * metrics.disk_total_bytes:
            free = show_bytes(metrics.disk_total_bytes - metrics.disk_used_bytes)
            found.append(f"the disk of {bench.settings.state_dir} is nearly full: {free} left")
        if bench.cluster.told and bench.shared.directory is not None and not bench.shared.verdict.usable:
            found.append(f"shared storage is not used: {bench.shared.verdict.why or 'it does not answer'}")
        if bench.cluster.told != bench.cluster.id:
            found.append(f"it joined another cluster before ({bench.cluster.id}); restart it when it is idle")
        found += [*bench.overlay.warnings(), *bench.plain_network.warnings()]
        info = bench.slot.info
        if info is not None and not (info.limits_memory and info.limits_cpu):
            what = " and ".join(name for name, has in _limits(info.limits_memory, info.limits_cpu) if not has)
            found.append(f"the engine ({info.name}) cannot limit {what} of tasks here")
        return [text[:MAX_WARNING_CHARACTERS] for text in found]


def _limits(memory: bool, cpu: bool) -> list[tuple[str, bool]]:
    return [("memory", memory), ("cores", cpu)]


def _sample(metrics: Metrics, at: float) -> Sample:
    gpus = sorted(metrics.gpus, key=lambda gpu: gpu.index)
    return Sample(
        at=at,
        cpu_percent=metrics.cpu_percent,
        memory_used_bytes=metrics.memory_used_bytes,
        gpu_percent=[gpu.utilization_percent or 0.0 for gpu in gpus],
        gpu_memory_used_bytes=[gpu.memory_used_bytes for gpu in gpus],
    )
