"""A terminal in a workload: typed keys there, output here, and across broken connections nothing twice or not at all."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kohakuriver.client.channel import open_channel
from kohakuriver.client.session import Session
from kohakuriver.client.streams import standard
from kohakuriver.client.streams.escapes import Escapes
from kohakuriver.model import codec
from kohakuriver.model import terminal as frames
from kohakuriver.model.errors import HostUnreachable, NotFound, Unavailable
from kohakuriver.model.route import Channel
from kohakuriver.model.stream_api import StartTerminal, TerminalOpened
from kohakuriver.model.terminal import BYTES, Kind
from kohakuriver.system.clock import SystemClock
from kohakuriver.system.loops import Loops
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import GOING_AWAY, LOST, error_in

Q = TypeVar("Q")
UNTAKEN_BYTES = 256 * 1024
CONFIRM_BYTES = 64 * 1024
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 90.0, 0.1, 3.0
INTERRUPT = b"\x03"
TO = {Kind.OUTPUT: standard.STDOUT, Kind.ERRORS: standard.STDERR}


@dataclass(slots=True)
class Unsent:
    """Input that the other side may not have; `taken` counts what it surely has."""

    taken: int = 0
    ended: bool = False
    pieces: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.room.set()

    def add(self, data: bytes) -> None:
        """It was typed."""
        self.pieces.append(data)
        self._count(len(data))

    def confirm(self, taken: int) -> None:
        """So much is there."""
        while self.pieces and taken > self.taken:
            piece = self.pieces.popleft()
            gone = min(len(piece), taken - self.taken)
            self.taken += gone
            self._count(-gone)
            if gone < len(piece):
                self.pieces.appendleft(piece[gone:])

    def _count(self, more_bytes: int) -> None:
        self._bytes += more_bytes
        if self._bytes < UNTAKEN_BYTES:
            self.room.set()
        else:
            self.room.clear()


class Terminal:
    """One session, over one connection after the other; `tell` gets a line when it has to be patient."""

    def __init__(
        self, session: Session, channel: Channel[Q], opening: Q, start: StartTerminal, tell: Callable[[str], None]
    ) -> None:
        self._session, self._start, self._tell = session, start, tell
        self._dial: Callable[[], Awaitable[RawSocket]] = lambda: open_channel(session, channel, opening, BYTES)
        self._socket: RawSocket | None = None
        self._unsent = Unsent()
        self._received = self._confirmed = 0
        self._resized = False
        self._code: int | None = None
        self._leaves = False

    async def run(self) -> int:
        """The exit code of the program; raises what the host or the runner refused with."""
        with ExitStack() as while_it_runs:
            await self._connect()
            if self._start.tty:
                while_it_runs.enter_context(standard.raw_terminal())
                while_it_runs.enter_context(standard.on_resize(self._note_size))
            try:
                return await self._until_over()
            finally:
                if self._socket is not None:
                    await self._socket.close()

    async def _until_over(self) -> int:
        typing = Loops(SystemClock())
        typing.spawn("typing", self._type())
        typing.spawn("sizes", self._resize())
        try:
            while self._code is None and not self._leaves:
                await self._hear()
                if self._code is None and not self._leaves:
                    await self._come_back()
        finally:
            await typing.stop()
        return 0 if self._code is None else self._code

    # ---- connections

    async def _connect(self) -> None:
        socket = await self._dial()
        rows, columns = standard.size()
        start = replace(self._start, rows=rows, columns=columns, received=self._received)
        await socket.send(frames.frame(Kind.START, codec.dumps(codec.encoder(StartTerminal)(start)).encode()))
        message = await socket.receive()
        if message is None:
            raise error_in(socket.close_code, socket.close_reason) or HostUnreachable("the terminal was closed")
        opened = codec.decode(TerminalOpened, codec.loads(frames.split(message)[1]), strict=False)
        self._start = replace(self._start, session=opened.session)
        self._received = opened.at
        self._unsent.confirm(opened.taken)
        await self._repeat_input(socket)
        self._socket, self._resized = socket, True

    async def _repeat_input(self, socket: RawSocket) -> None:
        """Say again what it has not got, and what is typed meanwhile."""
        said = 0
        while said < len(self._unsent.pieces):
            await socket.send(frames.frame(Kind.INPUT, self._unsent.pieces[said]))
            said += 1
        if self._unsent.ended:
            await socket.send(frames.frame(Kind.END_INPUT))

    async def _come_back(self) -> None:
        """Connect again; raises what ended the session, or HostUnreachable when it takes too long."""
        assert self._socket is not None
        if self._socket.close_code not in (LOST, GOING_AWAY):
            ended = error_in(self._socket.close_code, self._socket.close_reason)
            raise ended or HostUnreachable("the terminal was closed")
        began, pause = asyncio.get_running_loop().time(), FIRST_PAUSE_SECONDS
        self._tell("the connection broke; coming back …")
        while True:
            try:
                return await self._connect()
            except (Unavailable, ConnectionResetError) as away:
                if asyncio.get_running_loop().time() - began > PATIENCE_SECONDS:
                    raise HostUnreachable(f"could not come back: {away}") from away
            except NotFound as gone:
                raise NotFound(f"the connection broke, and when it was back {gone}") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    # ---- what comes

    async def _hear(self) -> None:
        """Take frames until the connection ends, or the program, or somebody leaves."""
        assert self._socket is not None
        while self._code is None and (message := await self._socket.receive()) is not None:
            kind, payload = frames.split(message)
            if kind in TO:
                standard.write_output(TO[kind], payload)
                await self._confirm(len(payload))
            elif kind is Kind.TAKEN:
                self._unsent.confirm(frames.read_total(payload))
            elif kind is Kind.EXIT:
                self._code = frames.read_exit(payload)

    async def _confirm(self, more_bytes: int) -> None:
        self._received += more_bytes
        if self._received - self._confirmed >= CONFIRM_BYTES:
            self._confirmed = self._received
            await self._say(frames.total_frame(Kind.RECEIVED, self._received))

    # ---- what goes

    async def _type(self) -> None:
        """Hand on what is typed, until its end."""
        if self._start.watch:
            return await self._look_on()
        escapes = Escapes()
        while True:
            await self._unsent.room.wait()
            data = await standard.read_input()
            typed = escapes.feed(data) if self._start.tty else None
            data = typed.data if typed else data
            if data:
                self._unsent.add(data)
                await self._say(frames.frame(Kind.INPUT, data))
            if typed and typed.leaves:
                return await self._leave()
            if not data and typed is None:
                self._unsent.ended = True
                return await self._say(frames.frame(Kind.END_INPUT))

    async def _look_on(self) -> None:
        """Keys are for us alone, and those leave that leave elsewhere: Ctrl-C is a key while the terminal is raw."""
        escapes = Escapes()
        while self._start.tty and (data := await standard.read_input()):
            if INTERRUPT in data or escapes.feed(data).leaves:
                return await self._leave()

    async def _leave(self) -> None:
        self._leaves = True
        if not self._start.watch:
            await self._say(frames.frame(Kind.LEAVE))
        if self._socket is not None:
            await self._socket.close()

    def _note_size(self) -> None:
        self._resized = True

    async def _resize(self) -> None:
        """Tell of another size, at most some ten times a second."""
        while True:
            await asyncio.sleep(0.1)
            if self._resized:
                self._resized = False
                await self._say(frames.resize_frame(*standard.size()))

    async def _say(self, frame: bytes) -> None:
        """Say it if there is a connection; what matters is said again when there is one again."""
        try:
            if self._socket is not None:
                await self._socket.send(frame)
        except ConnectionResetError:
            pass


def hold(session: Session, channel: Channel[Q], opening: Q, start: StartTerminal, tell: Callable[[str], None]) -> int:
    """Be where the channel leads until the program there ends or the person leaves; the exit code."""
    return asyncio.run(Terminal(session, channel, opening, start, tell).run())
