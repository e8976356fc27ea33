"""Stops VPS whose lease is over, and those that nobody uses, where that was configured."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from kohakuriver.host.auth.uses import Uses
from kohakuriver.host.background.approvals import SYSTEM
from kohakuriver.host.services.leases import IdleClocks, Verdict, judge
from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.store import audit, tasks, vps
from kohakuriver.host.store.audit import Deed
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import RiverError
from kohakuriver.model.lifecycle import Desired
from kohakuriver.model.vps import Vps
from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Wake
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
MAY_STOP = (Desired.RUN, Desired.PAUSE)


@dataclass(frozen=True, slots=True)
class LeaseKeeper:
    """The loop's step."""

    db: Database
    registry: NodeRegistry
    uses: Uses
    idle: IdleClocks
    clock: Clock
    dispatch_wake: Wake
    tell_inside: Callable[[Vps, str], Awaitable[None]]
    _told: dict[Snowflake, int] = field(default_factory=dict)  # how urgently, in terminals

    async def step(self) -> None:
        """Look at every VPS that runs, and stop those whose time is over."""
        running = await self.db.read(vps.running)
        moment = self.clock.monotonic()
        watched = [each for each in running if each.idle_stop_seconds is not None]
        self.idle.keep_only({each.task_id for each in watched})
        for each in watched:
            self.idle.look(each.task_id, self._is_in_use(each), moment)
        await self._warn(running)
        due = [each for each in running if each.desired in MAY_STOP and self._judge(each).why]
        if due:
            await self.db.write(lambda tx: self._stop(tx, due))
            self.dispatch_wake.set()

    def _is_in_use(self, each: Vps) -> bool:
        """What nobody knows counts as use."""
        node = self.registry.nodes.get(each.assigned_node or "")
        if node is None or not node.online or node.busy.get(each.task_id, True):
            return True
        return self.uses.is_somebody_inside(each.task_id)

    def _judge(self, each: Vps) -> Verdict:
        return judge(each, self.idle.seconds(each.task_id, self.clock.monotonic()), self.clock.now())

    async def _warn(self, running: list[Vps]) -> None:
        """Write into the terminals of those that will be stopped, once when that begins and once shortly before."""
        due = [(each, verdict) for each in running if (verdict := self._judge(each)).notice]
        for task_id in self._told.keys() - {each.task_id for each, _ in due}:
            del self._told[task_id]  # it was extended, or somebody came
        untold = [pair for pair in due if pair[1].urgency > self._told.get(pair[0].task_id, 0)]
        await asyncio.gather(*(self._tell(each, verdict) for each, verdict in untold))

    async def _tell(self, each: Vps, verdict: Verdict) -> None:
        with suppress(RiverError):  # it is tried again at the next look
            await self.tell_inside(each, verdict.notice)
            self._told[each.task_id] = verdict.urgency

    def _stop(self, tx: sqlite3.Connection, due: list[Vps]) -> None:
        now = self.clock.now()
        for each in due:
            fresh, why = vps.get(tx, each.task_id), self._judge(each).why
            if (fresh.attempt, fresh.expires_at, fresh.desired) == (each.attempt, each.expires_at, each.desired):
                log.info("stopping a vps task=%s why=%s", each.task_id, why)
                tasks.intend(tx, fresh, Desired.STOP, SYSTEM.name, now, why=why)
                audit.record(tx, SYSTEM, Deed("vps.stop", f"task:{each.task_id}", why), now)
