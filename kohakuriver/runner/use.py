"""Whether something works in the VPS of which that matters: looks at their processor time and their GPUs."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kohakuriver.model.errors import EngineFailed, NotFound
from kohakuriver.model.node import Gpu
from kohakuriver.model.report import State
from kohakuriver.runner.attempt import Held
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.vitals import Vitals
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system.engine import WorkloadKey

log = logging.getLogger(__name__)
LOOK_SECONDS = 15.0
BUSY_CORES, BUSY_PERCENT = 0.05, 5.0  # a shell that waits, and a sleeping daemon or two, take less


@dataclass(frozen=True, slots=True)
class Reading:
    """When (monotonic seconds) how much processor time had been taken."""

    at: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class UseWatch:
    """The loop's step; a reading is compared with the one before, so the first says nothing."""

    bench: Bench
    workloads: Workloads
    vitals: Vitals
    before: dict[WorkloadKey, Reading] = field(default_factory=dict)

    async def step(self) -> None:
        """Look at each once."""
        watched = [held for held in self.workloads.running() if _matters(held)]
        for key in self.before.keys() - {held.key for held in watched}:
            del self.before[key]
        for held in watched:
            try:
                cpu_seconds = await self.bench.snapshots.hands.cpu_seconds(held.key)
            except (EngineFailed, NotFound):  # it is over, or Docker is away: nobody knows, which counts as use
                self.before.pop(held.key, None)
                held.state = replace(held.state, busy=None)
                continue
            now = Reading(self.bench.clock.monotonic(), cpu_seconds)
            last, self.before[held.key] = self.before.get(held.key), now
            busy = None if last is None else is_busy(last, now, self._gpus(held))
            if held.state.state is State.RUNNING:
                held.state = replace(held.state, busy=busy)

    def _gpus(self, held: Held) -> Iterable[Gpu]:
        own = set(held.accepted.request.gpus)
        return (gpu for gpu in self.vitals.metrics.gpus if gpu.index in own)


def _matters(held: Held) -> bool:
    order = held.accepted.request.vps
    return order is not None and order.watch_use


def is_busy(last: Reading, now: Reading, gpus: Iterable[Gpu]) -> bool:
    """Whether between two readings a processor, or a GPU just now, had more to do than waiting takes."""
    passed_seconds = max(now.at - last.at, 0.001)
    if now.cpu_seconds < last.cpu_seconds:  # it was started again
        return True
    if (now.cpu_seconds - last.cpu_seconds) / passed_seconds > BUSY_CORES:
        return True
    return any((gpu.utilization_percent or 0.0) > BUSY_PERCENT for gpu in gpus)
