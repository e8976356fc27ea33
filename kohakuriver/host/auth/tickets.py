"""Tickets by which a browser opens a socket: good once, for one path, for half a minute, and only in memory.

A browser cannot send a header with a socket, and a token in a URL would stand in logs.
"""

from dataclasses import dataclass, field

from kohakuriver.host.auth import credentials
from kohakuriver.host.auth.accounts import Accounts
from kohakuriver.host.auth.credentials import Kind
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import TooMany
from kohakuriver.system.clock import Clock

GOOD_SECONDS = 30.0
MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Open:
    """A ticket that nobody has used yet; `until` is monotonic seconds."""

    caller: Caller
    path: str
    until: float


@dataclass(slots=True)
class Tickets:
    """All that are open, by the digest of each."""

    accounts: Accounts
    clock: Clock
    _made: int = 0
    _open: dict[bytes, _Open] = field(default_factory=dict)

    def give(self, caller: Caller, path: str) -> str:
        """A ticket for one socket; raises TooMany when too many are open."""
        now = self.clock.monotonic()
        if len(self._open) >= MOST:
            self._open = {digest: ticket for digest, ticket in self._open.items() if ticket.until > now}
        if len(self._open) >= MOST:
            raise TooMany("too many tickets are open", {"retry_after_seconds": int(GOOD_SECONDS)})
        self._made += 1
        text = credentials.make(Kind.TICKET, self._made)
        self._open[credentials.digest_of(text)] = _Open(caller, path, now + GOOD_SECONDS)
        return text

    def redeem(self, text: str, path: str) -> Caller | None:
        """Who opens the socket at this path; None when the ticket is not good (any more)."""
        found = self._open.pop(credentials.digest_of(text), None)
        if found is None or found.path != path or found.until <= self.clock.monotonic():
            return None
        return found.caller if self.accounts.still(found.caller) else None
