"""The terminal sessions of one program: kept a while when nobody holds them, then ended."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kohakuriver.model.errors import NotFound, TooMany
from kohakuriver.model.execution import ExecSession
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.wire.terminal_seat import Seat
from kohakuriver.wire.terminal_session import Session

K = TypeVar("K")
MOST_SESSIONS, MOST_IN_ONE = 500, 32
SWEEP_SECONDS = 1.0
DEFAULT_TERM = "xterm-256color"
Spawn = Callable[[str, Coroutine[Any, Any, None]], object]


@dataclass(slots=True)
class Sessions(Generic[K]):
    """By id; `now` is monotonic, `spawn` begins work of a name, a key says where a session is."""

    now: Callable[[], float]
    spawn: Spawn
    keep_seconds: float
    by_id: dict[str, Session[K]] = field(default_factory=dict)

    def add(self, key: K, user: str, process: ExecSession, start: StartTerminal) -> Session[K]:
        """A new one, of a process that was begun for it."""
        session = Session(key, user, process, self.now(), on_screen=start.tty)
        self.by_id[session.id] = session
        self.spawn(f"terminal in {key}", session.run())
        self.spawn(f"input to {key}", session.feed())
        return session

    def find(self, key: K, session_id: str, user: str) -> Session[K]:
        """A session of this person; raises NotFound."""
        session = self.by_id.get(session_id)
        if session is None or (session.key, session.user) != (key, user):
            raise NotFound("the session has ended")
        return session

    def latest(self, key: K, session_id: str) -> Session[K]:
        """The session of that id, or the one begun last there; raises NotFound."""
        found = [each for each in self.at(key) if session_id in ("", each.id) and not each.is_over]
        if not found:
            raise NotFound("nobody has a terminal there")
        return found[-1]

    def at(self, key: K) -> Iterator[Session[K]]:
        """All in one place."""
        return (session for session in self.by_id.values() if session.key == key)

    def refuse_too_many(self, key: K) -> None:
        """Raise TooMany where no further one may be begun."""
        if len(self.by_id) >= MOST_SESSIONS or sum(1 for _ in self.at(key)) >= MOST_IN_ONE:
            raise TooMany("too many terminals are open here", {"retry_after_seconds": 60})

    async def attend(self, session: Session[K], seat: Seat) -> None:
        """Have somebody at a session until he goes; it ends with him when he will not come back."""
        listener = session.watch() if seat.start.watch else session.hold(seat.start.received)
        try:
            await seat.serve(session, listener)
        finally:
            session.release(listener, self.now())
            if seat.ends_session:
                await asyncio.shield(self.end(session))

    async def end(self, session: Session[K]) -> None:
        """End it now."""
        if self.by_id.pop(session.id, None) is not None:
            await session.end()

    async def sweep(self, is_over: Callable[[K], bool]) -> None:
        """End what nobody has held for a while, and what is where everything is over."""
        now = self.now()
        for session in list(self.by_id.values()):
            lonely = session.lonely_since is not None and now - session.lonely_since >= self.keep_seconds
            if lonely or (session.holder is None and is_over(session.key)):
                self.spawn("end of a terminal", self.end(session))

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self.end(session) for session in list(self.by_id.values())))
