"""Deeds for the trail that have no transaction of their own: kept for a moment, then written together.

There are only so many between two writes; what is more is counted, so that nobody can fill the disk by failing.
"""

from collections import deque
from dataclasses import dataclass, field

from kohakuriver.host.store import audit
from kohakuriver.host.store.audit import Deed, Done
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import StoreUnavailable
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

MOST = 200
AGAIN_SECONDS, MOST_REMEMBERED = 60.0, 1000


@dataclass(slots=True)
class Notes:
    """What is not written yet."""

    db: Database
    clock: Clock
    _open: deque[Done] = field(default_factory=deque)
    _left_out: int = 0
    _noted_at: dict[tuple[str, Deed], float] = field(default_factory=dict)

    def add(self, caller: Caller, deed: Deed) -> None:
        """Note it."""
        if len(self._open) >= MOST:
            self._left_out += 1
            return
        self._open.append(Done(self.clock.now(), caller.name, caller.address, deed))

    def add_once(self, caller: Caller, deed: Deed) -> None:
        """Note what is done again and again, but only once in a while."""
        now, what = self.clock.monotonic(), (caller.name, deed)
        if len(self._noted_at) >= MOST_REMEMBERED:
            self._noted_at = {each: at for each, at in self._noted_at.items() if at > now - AGAIN_SECONDS}
        if self._noted_at.get(what, -AGAIN_SECONDS) <= now - AGAIN_SECONDS:
            self._noted_at[what] = now
            self.add(caller, deed)

    async def write(self) -> None:
        """Write down what is open; it stays open when the store cannot take it now."""
        if not self._open:
            return
        deeds, left_out = list(self._open), self._left_out
        self._open.clear()
        self._left_out = 0
        extra = (
            [Done(self.clock.now(), "", "", Deed("audit", "", f"{left_out} more were left out"))] if left_out else []
        )
        try:
            await self.db.write(lambda tx: audit.record_all(tx, [*deeds, *extra]))
        except StoreUnavailable:
            self._open.extendleft(reversed(deeds))
            self._left_out += left_out
            raise
