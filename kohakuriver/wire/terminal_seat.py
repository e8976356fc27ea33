"""Somebody at a terminal session over a socket: a program in frames of bytes, or a browser in JSON."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from kohakuriver.model import codec
from kohakuriver.model import terminal as frames
from kohakuriver.model.errors import Conflict, RiverError
from kohakuriver.model.execution import ERR
from kohakuriver.model.stream_api import StartTerminal, TerminalOpened
from kohakuriver.model.terminal import Kind, Leave, Received, Said, Signal
from kohakuriver.wire.sockets import LOGIN_ENDED, NORMAL, Message, Socket, closing_of
from kohakuriver.wire.terminal_session import Chunk, Listener, Session
from kohakuriver.wire.terminals import start_of

TAKEN_STRIDE_BYTES = 16 * 1024
SENT_AWAY = "the session was ended, or taken up elsewhere"


class Speech(Protocol):
    """How one kind of peer is spoken with; `confirms` when it says itself what it has heard."""

    confirms: bool

    async def opened(self, session: Session[Any], listener: Listener) -> None:
        """Tell where the session stands."""

    async def chunk(self, chunk: Chunk) -> None:
        """Tell output."""

    async def taken(self, total_bytes: int) -> None:
        """Tell how much input was taken."""

    async def exit(self, code: int) -> None:
        """Tell the end."""

    async def failed(self, error: RiverError) -> None:
        """Tell why it is over, where the code of the closing does not."""

    def read(self, message: Message) -> Said:
        """Understand what it says; raises BadRequest."""


class InBytes(Speech):
    """With a program."""

    confirms = True

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def opened(self, session: Session[Any], listener: Listener) -> None:
        told = TerminalOpened(session=session.id, at=listener.position, taken=session.taken_bytes)
        await self._socket.send(frames.frame(Kind.OPENED, codec.dumps(codec.encoder(TerminalOpened)(told)).encode()))

    async def chunk(self, chunk: Chunk) -> None:
        await self._socket.send(frames.frame(Kind.ERRORS if chunk.kind == ERR else Kind.OUTPUT, chunk.data))

    async def taken(self, total_bytes: int) -> None:
        await self._socket.send(frames.total_frame(Kind.TAKEN, total_bytes))

    async def exit(self, code: int) -> None:
        await self._socket.send(frames.exit_frame(code))  # it closes when it has heard this, and comes back if not

    async def failed(self, error: RiverError) -> None:
        """The code tells."""

    def read(self, message: Message) -> Said:
        return frames.read_bytes(message)


class InText(Speech):
    """With a browser: what was sent to it counts as heard."""

    confirms = False

    def __init__(self, socket: Socket) -> None:
        self._socket, self._out = socket, frames.TextOut()

    async def opened(self, session: Session[Any], listener: Listener) -> None:
        await self._socket.send(frames.session_text(session.id))

    async def chunk(self, chunk: Chunk) -> None:
        if text := self._out.output(chunk.data):
            await self._socket.send(text)

    async def taken(self, total_bytes: int) -> None:
        """It does not ask."""

    async def exit(self, code: int) -> None:
        await self._socket.send(frames.exit_text(code))
        await self._socket.close()

    async def failed(self, error: RiverError) -> None:
        with suppress(ConnectionResetError):
            await self._socket.send(frames.error_text(str(error)))

    def read(self, message: Message) -> Said:
        return frames.read_text(message)


@dataclass(slots=True)
class Seat:
    """One peer, what it asked for, and how it is spoken with."""

    start: StartTerminal
    speech: Speech
    socket: Socket
    leaves: bool = False
    is_done: bool = False

    async def serve(self, session: Session[Any], listener: Listener) -> None:
        """Until the peer goes or is sent away; raises BadRequest for what it should not have said."""
        await self.socket.open(frames.TEXT if frames.TEXT in self.socket.offers else "")
        await self.speech.opened(session, listener)
        try:
            await asyncio.gather(self._tell(session, listener), self._hear(session, listener))
        finally:
            self.is_done = True

    @property
    def ends_session(self) -> bool:
        """Whether nobody will come back for it."""
        return not self.start.watch and (self.leaves or self.socket.close_code in (NORMAL, LOGIN_ENDED))

    async def _tell(self, session: Session[Any], listener: Listener) -> None:
        """Say what is written, until the end of the process."""
        told_bytes = session.taken_bytes
        while not listener.gone:
            listener.wake.clear()
            if session.taken_bytes >= told_bytes + TAKEN_STRIDE_BYTES and not self.start.watch:
                told_bytes = session.taken_bytes
                await self.speech.taken(told_bytes)
            if (chunk := session.output.after(listener.position)) is not None:
                await self.speech.chunk(chunk)
                listener.position = chunk.end
                if not (self.speech.confirms or self.start.watch):
                    session.output.confirm(chunk.end)
            elif session.is_over:
                return await self._tell_end(session)
            else:
                await listener.wake.wait()
        if not self.is_done:
            await self._refuse(Conflict(SENT_AWAY))

    async def _tell_end(self, session: Session[Any]) -> None:
        if session.failure is not None:
            await self._refuse(session.failure)
        else:
            self.leaves = not self.speech.confirms
            await self.speech.exit(session.exit_code or 0)

    async def _refuse(self, error: RiverError) -> None:
        await self.speech.failed(error)
        await self.socket.close(*closing_of(error))

    async def _hear(self, session: Session[Any], listener: Listener) -> None:
        while (message := await self.socket.receive()) is not None:
            said = self.speech.read(message)
            if self.start.watch:
                continue
            match said:
                case Received(total_bytes):
                    session.output.confirm(total_bytes)
                case Signal(number):
                    await session.process.signal(number)
                case Leave():
                    self.leaves = True
                    break
                case _:
                    session.typed.put(said)
                    await session.typed.has_room()
        self.is_done = True
        listener.leave()


async def take_seat(socket: Socket, asked: StartTerminal) -> Seat:
    """Whoever is at the socket: a program says itself what it wants, in its first frame; raises BadRequest."""
    if frames.BYTES not in socket.offers:
        return Seat(asked, InText(socket), socket)
    await socket.open(frames.BYTES)
    return Seat(await start_of(socket), InBytes(socket), socket)
