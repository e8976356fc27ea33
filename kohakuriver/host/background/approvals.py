"""Rejects tasks for which nobody has found the time to decide."""

import logging
import sqlite3
from dataclasses import dataclass

from kohakuriver.host.store import audit, tasks
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.tasks import Change
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.lifecycle import Event
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.units import rfc3339, show_seconds, unix_seconds
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
SYSTEM = Caller("system", Role.ADMIN)  # no account can have this name
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ApprovalExpiry:
    """The loop's step."""

    settings: HostSettings
    db: Database
    clock: Clock

    async def step(self) -> None:
        """Reject all that have waited too long."""
        while await self.db.write(self._reject_stale) == AT_ONCE:
            log.info("requests for approval expired tasks=%d", AT_ONCE)

    def _reject_stale(self, tx: sqlite3.Connection) -> int:
        now, patience = self.clock.now(), self.settings.approval_expire_hours * 3600.0
        why = f"nobody approved it within {show_seconds(patience)}"
        oldest = tasks.waiting_for_approval(tx, AT_ONCE)
        stale = [task for task in oldest if unix_seconds(task.submitted_at) <= now - patience]
        decided = {"approved_by": SYSTEM.name, "approved_at": rfc3339(now)}
        for task in stale:
            values = {"approval_status": "expired", "rejection_reason": why, **decided}
            tasks.move(tx, task, Change(Event.REJECTED, values, why, SYSTEM.name), now)
            audit.record(tx, SYSTEM, Deed("task.reject", f"task:{task.task_id}", why), now)
        return len(stale)
