"""Removes outputs from this node that are kept no longer."""

from dataclasses import dataclass

from kohakuriver.runner.bench import Bench
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system import kept_logs
from kohakuriver.system.kept_logs import Keep


@dataclass(frozen=True, slots=True)
class LogKeeper:
    """The step of a loop."""

    bench: Bench
    workloads: Workloads
    keep: Keep

    async def step(self) -> None:
        """Remove what the host has the end of, and is too old or too much."""
        logs = self.bench.own_logs
        found = await self.bench.disk.do(lambda: kept_logs.look(logs))
        held = [each for each in found if self.workloads.find(each.task_id, each.attempt)]
        going = kept_logs.doomed(found, lambda each: each not in held, self.keep, self.bench.clock.now())
        await self.bench.disk.do(lambda: kept_logs.remove(logs, going))
