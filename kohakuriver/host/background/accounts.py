"""Keeps accounts and the trail in order: what ran out ends, what was used is written down, what is old goes."""

import logging
import sqlite3
from dataclasses import dataclass

from kohakuriver.host.auth.parts import Auth
from kohakuriver.host.store import audit, invitations
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
TRAIL_ROWS_AT_ONCE = 5_000  # others write, too
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class AccountsKeeper:
    """The steps of two loops."""

    settings: HostSettings
    auth: Auth
    db: Database
    clock: Clock

    async def sweep(self) -> None:
        """End what has run out; forget what the trail need not keep."""
        await self.auth.accounts.keep_up()
        now = self.clock.now()
        await self.db.write(lambda tx: invitations.sweep(tx, now))
        begins = now - self.settings.audit_retention_days * DAY_SECONDS

        def forget(tx: sqlite3.Connection) -> int:
            return audit.forget_before(tx, begins, TRAIL_ROWS_AT_ONCE)

        while await self.db.write(forget) == TRAIL_ROWS_AT_ONCE:
            log.info("the old end of the trail goes entries=%d", TRAIL_ROWS_AT_ONCE)

    async def note(self) -> None:
        """Write down what was done outside of transactions."""
        await self.auth.notes.write()
