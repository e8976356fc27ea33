"""Sees to it that the tasks of a gang start together, and stop together."""

import logging
import sqlite3
from dataclasses import dataclass

from kohakuriver.host.services import gangs, reconcile
from kohakuriver.host.services.gangs import Act
from kohakuriver.host.store import gangs as rows
from kohakuriver.host.store import tasks
from kohakuriver.host.store.gangs import Member
from kohakuriver.model.lifecycle import ON_NODE, Desired, Event, Status
from kohakuriver.model.units import rfc3339
from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Wake
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
BY = "the other tasks of its group"


@dataclass(frozen=True, slots=True)
class GangKeeper:
    """The step of a loop; `wake` is the dispatch's."""

    db: Database
    clock: Clock
    wake: Wake

    async def step(self) -> None:
        """Settle what the members' statuses ask for."""
        if not await self.db.read(rows.every):
            return
        acts = await self.db.write(self._settle)
        if acts:
            log.info("groups of tasks settled acts=%d", acts)
            self.wake.set()

    def _settle(self, tx: sqlite3.Connection) -> int:
        settled = gangs.settle(rows.every(tx))
        for member, act, why in settled.acts:
            self._do(tx, member, act, why)
        for gang in settled.over:
            rows.delete(tx, gang)
        return len(settled.acts)

    def _do(self, tx: sqlite3.Connection, member: Member, act: Act, why: str) -> None:
        task, now = tasks.get(tx, member.task_id), self.clock.now()
        if act is Act.RETURN:
            tasks.move(tx, task, reconcile.retried(task, why), now)
        elif task.status in ON_NODE or task.status is Status.LOST:
            tasks.intend(tx, task, Desired.KILL, f"{BY} ({why})", now)
        else:
            values = {"desired": Desired.KILL, "completed_at": rfc3339(now), "error_message": why}
            tasks.move(tx, task, tasks.Change(Event.KILLED, values, why), now)
