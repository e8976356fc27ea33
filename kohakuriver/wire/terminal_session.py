"""One terminal session: a process, the last of what it wrote, and those who hear it.

It outlives connections. What its holder has not confirmed is kept, and when that is much, the process is not read
until he has; so nothing is lost and memory stays bounded.
"""

import asyncio
import secrets
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kohakuriver.model.errors import BadRequest, RiverError
from kohakuriver.model.execution import OUT, ExecSession
from kohakuriver.model.terminal import EndInput, Input, Leave, Resize

BUFFER_BYTES = 1 << 20
FRAME_BYTES = 256 * 1024
INPUT_BYTES = 512 * 1024  # more than a program sends before it hears that it was taken
NOTICE = "\r\n\x1b[7m kohakuriver: {} \x1b[0m\r\n"  # in reverse video, on a line of its own
K = TypeVar("K")
Typing = Input | Resize | EndInput | Leave


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was written at one time; `start` counts from the first byte of the session."""

    start: int
    kind: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@dataclass(slots=True, eq=False)
class Listener:
    """Somebody who hears a session, from `position` on; `gone` when he is not to hear more."""

    position: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False

    def leave(self) -> None:
        """Let him hear no more."""
        self.gone = True
        self.wake.set()


class Output:
    """The last of what a process wrote."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self.first = self.head = self.confirmed = 0
        self.room = asyncio.Event()
        self.room.set()

    def append(self, kind: int, data: bytes) -> None:
        """Keep it, and forget what is old and confirmed."""
        self._chunks.append(Chunk(self.head, kind, data))
        self.head += len(data)
        self._trim()

    def confirm(self, position: int) -> None:
        """The holder has everything before this; raises BadRequest when that was never written."""
        if position > self.head:
            raise BadRequest(f"received: {position} is more than was ever written")
        self.confirmed = max(self.confirmed, position)
        self._trim()

    def after(self, position: int) -> Chunk | None:
        """What follows, of one kind and not too much; None when there is nothing yet."""
        found: list[bytes] = []
        kind, start, size = 0, max(position, self.first), 0
        for chunk in self._chunks:
            if chunk.end <= start:
                continue
            if found and (chunk.kind != kind or size >= FRAME_BYTES):
                break
            kind, piece = chunk.kind, chunk.data[max(start - chunk.start, 0) :]
            found.append(piece[:FRAME_BYTES])
            size += len(found[-1])
            if len(piece) > FRAME_BYTES:
                break
        return Chunk(start, kind, b"".join(found)) if found else None

    def _trim(self) -> None:
        while self._chunks and self._chunks[0].end <= min(self.confirmed, self.head - BUFFER_BYTES):
            self.first = self._chunks.popleft().end
        if self.head - self.confirmed < BUFFER_BYTES:
            self.room.set()
        else:
            self.room.clear()


class Typed:
    """What the holder said and the process has not got yet, in order; several sizes in a row are one."""

    def __init__(self) -> None:
        self._waiting: deque[Typing] = deque()
        self._there, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._pending_bytes = 0

    def put(self, said: Typing) -> None:
        """Add it."""
        if isinstance(said, Resize) and self._waiting and isinstance(self._waiting[-1], Resize):
            self._waiting.pop()
        self._waiting.append(said)
        self._count(len(said.data) if isinstance(said, Input) else 0)
        self._there.set()

    async def get(self) -> Typing:
        """The next."""
        while not self._waiting:
            self._there.clear()
            await self._there.wait()
        said = self._waiting.popleft()
        self._count(-len(said.data) if isinstance(said, Input) else 0)
        return said

    async def has_room(self) -> None:
        """Return when not too much waits."""
        await self._room.wait()

    def _count(self, more_bytes: int) -> None:
        self._pending_bytes += more_bytes
        if self._pending_bytes < INPUT_BYTES:
            self._room.set()
        else:
            self._room.clear()


class Session(Generic[K]):
    """One session of one person at one place; `lonely_since` is when (monotonic) its last holder went."""

    def __init__(self, key: K, user: str, process: ExecSession, now: float, *, on_screen: bool = True) -> None:
        self.on_screen = on_screen
        self.id, self.key, self.user, self.process = secrets.token_hex(16), key, user, process
        self.output, self.typed = Output(), Typed()
        self.taken_bytes = 0
        self.exit_code: int | None = None
        self.failure: RiverError | None = None
        self.holder: Listener | None = None
        self.lonely_since: float | None = now
        self._watchers: set[Listener] = set()

    @property
    def is_over(self) -> bool:
        return self.exit_code is not None or self.failure is not None

    async def run(self) -> None:
        """Read the process to its end."""
        try:
            while (piece := await self.process.read()) is not None:
                self.output.append(*piece)
                self._ring()
                await self.output.room.wait()
            self.exit_code = await self.process.wait()
        except RiverError as failed:
            self.failure = failed
        finally:
            self.typed.put(Leave())
            self._ring()

    async def feed(self) -> None:
        """Hand the process what is typed, until one of the two ends."""
        while not isinstance(said := await self.typed.get(), Leave):
            match said:
                case Input(data):
                    await self.process.write(data)
                    self.taken_bytes += len(data)
                    self._ring()
                case Resize(rows, columns):
                    with suppress(RiverError):
                        await self.process.resize(rows, columns)
                case EndInput():
                    await self.process.write_eof()

    def tell(self, text: str) -> None:
        """A line of ours among what the process writes; nothing is added to what a program reads."""
        if self.on_screen and not self.is_over:
            self.output.append(OUT, NOTICE.format(text).encode())
            self._ring()

    def hold(self, received: int) -> Listener:
        """Take it over, from wherever it is held now; raises BadRequest for output that is not there."""
        if received < self.output.first:
            raise BadRequest("received: what comes after it is kept no more")
        self.output.confirm(received)
        if self.holder is not None:
            self.holder.leave()
        self.holder, self.lonely_since = Listener(received), None
        return self.holder

    def watch(self) -> Listener:
        """Listen from what is still kept on."""
        listener = Listener(self.output.first)
        self._watchers.add(listener)
        return listener

    def release(self, listener: Listener, now: float) -> None:
        """He hears no more."""
        listener.leave()
        self._watchers.discard(listener)
        if self.holder is listener:
            self.holder, self.lonely_since = None, now

    async def end(self) -> None:
        """End the process and let everybody go."""
        for listener in self._listeners():
            listener.leave()
        self.output.confirm(self.output.head)
        self.typed.put(Leave())
        with suppress(RiverError):
            await self.process.close()

    def _ring(self) -> None:
        for listener in self._listeners():
            listener.wake.set()

    def _listeners(self) -> list[Listener]:
        return [*self._watchers, *((self.holder,) if self.holder else ())]
