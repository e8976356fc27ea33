"""Frees the addresses that were reserved and not claimed in time."""

import logging
from dataclasses import dataclass

from kohakuriver.host.store import overlay as rows
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReservationExpiry:
    """The step of a loop."""

    db: Database
    clock: Clock

    async def step(self) -> None:
        """Free what has expired by now."""
        now = self.clock.now()
        expired = await self.db.write(lambda tx: rows.expire(tx, now))
        if expired:
            log.info("reservations expired count=%d", expired)
