"""Removes outputs from the shared storage that are kept no longer."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.host.store import tasks
from kohakuriver.model.lifecycle import FINAL
from kohakuriver.system import kept_logs
from kohakuriver.system.clock import Clock
from kohakuriver.system.kept_logs import Keep, KeptLog
from kohakuriver.system.sqlite import Database


@dataclass(frozen=True, slots=True)
class LogKeeper:
    """The step of a loop."""

    logs: Path
    keep: Keep
    db: Database
    clock: Clock

    async def step(self) -> None:
        """Remove what is over and too old or too much; a task that is lost may yet come back."""
        found = await asyncio.to_thread(kept_logs.look, self.logs)  # before the rows: what begins now is not in it
        rows = await self.db.read(lambda tx: tasks.attempts(tx, {each.task_id for each in found}))

        def is_over(each: KeptLog) -> bool:
            return each.task_id in rows and rows[each.task_id][1] in FINAL

        going = kept_logs.doomed(found, is_over, self.keep, self.clock.now())
        await asyncio.to_thread(kept_logs.remove, self.logs, going)
