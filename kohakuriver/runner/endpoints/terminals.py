"""Terminals: a socket to a session, for a program in frames of bytes, or for a browser in JSON."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from kohakuriver.model import codec, stream_api
from kohakuriver.model import terminal as frames
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict, NotAllowed, NotFound, RiverError
from kohakuriver.model.stream_api import RunnerTerminal, StartTerminal, TerminalOpened
from kohakuriver.model.terminal import Kind, Leave, Received, Said, Signal
from kohakuriver.runner.attempt import Held
from kohakuriver.runner.state import Runner
from kohakuriver.runner.terminal_session import Chunk, Listener, Session
from kohakuriver.system.engine_exec import ERR
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import LOGIN_ENDED, NORMAL, Message, Socket, closing_of
from kohakuriver.wire.terminals import start_of

TAKEN_STRIDE_BYTES = 16 * 1024
SENT_AWAY = "the session was ended, or taken up elsewhere"


class Speech(Protocol):
    """How one kind of peer is spoken with; `confirms` when it says itself what it has heard."""

    confirms: bool

    async def opened(self, session: Session, listener: Listener) -> None:
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

    async def opened(self, session: Session, listener: Listener) -> None:
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

    async def opened(self, session: Session, listener: Listener) -> None:
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
class Attached:
    """One peer at one session; `is_watching` when it only looks on."""

    session: Session
    listener: Listener
    speech: Speech
    socket: Socket
    is_watching: bool
    leaves: bool = False
    is_done: bool = False

    async def serve(self) -> None:
        """Until the peer goes or is sent away; raises BadRequest for what it should not have said."""
        await self.speech.opened(self.session, self.listener)
        try:
            await asyncio.gather(self._tell(), self._hear())
        finally:
            self.is_done = True

    @property
    def ends_session(self) -> bool:
        """Whether nobody will come back for it."""
        return not self.is_watching and (self.leaves or self.socket.close_code in (NORMAL, LOGIN_ENDED))

    async def _tell(self) -> None:
        """Say what is written, until the end of the process."""
        session, listener, told_bytes = self.session, self.listener, self.session.taken_bytes
        while not listener.gone:
            listener.wake.clear()
            if session.taken_bytes >= told_bytes + TAKEN_STRIDE_BYTES and not self.is_watching:
                told_bytes = session.taken_bytes
                await self.speech.taken(told_bytes)
            if (chunk := session.output.after(listener.position)) is not None:
                await self.speech.chunk(chunk)
                listener.position = chunk.end
                if not (self.speech.confirms or self.is_watching):
                    session.output.confirm(chunk.end)
            elif session.is_over:
                return await self._tell_end()
            else:
                await listener.wake.wait()
        if not self.is_done:
            await self._refuse(Conflict(SENT_AWAY))

    async def _tell_end(self) -> None:
        if self.session.failure is not None:
            await self._refuse(self.session.failure)
        else:
            self.leaves = not self.speech.confirms
            await self.speech.exit(self.session.exit_code or 0)

    async def _refuse(self, error: RiverError) -> None:
        await self.speech.failed(error)
        await self.socket.close(*closing_of(error))

    async def _hear(self) -> None:
        while (message := await self.socket.receive()) is not None:
            said = self.speech.read(message)
            if self.is_watching:
                continue
            match said:
                case Received(total_bytes):
                    self.session.output.confirm(total_bytes)
                case Signal(number):
                    await self.session.process.signal(number)
                case Leave():
                    self.leaves = True
                    break
                case _:
                    self.session.typed.put(said)
                    await self.session.typed.has_room()
        self.is_done = True
        self.listener.leave()


async def terminal(runner: Runner, caller: Caller, asked: RunnerTerminal, socket: Socket) -> None:
    held = runner.workloads.find(asked.task_id, asked.attempt)
    if held is None:
        raise NotFound(f"there is no task {asked.task_id} on {runner.hostname}")
    speech: Speech = InText(socket)
    start = StartTerminal(
        rows=asked.rows, columns=asked.columns, shell=asked.shell, session=asked.session, watch=asked.watch
    )
    if frames.BYTES in socket.offers:
        await socket.open(frames.BYTES)
        start, speech = await start_of(socket), InBytes(socket)
    session = await _session(runner, held, asked, start)
    listener = session.watch() if start.watch else session.hold(start.received)
    attached = Attached(session, listener, speech, socket, start.watch)
    try:
        await socket.open(frames.TEXT if frames.TEXT in socket.offers else "")
        await attached.serve()
    finally:
        session.release(listener, runner.clock.monotonic())
        if attached.ends_session:
            await asyncio.shield(runner.terminals.end(session))


async def _session(runner: Runner, held: Held, asked: RunnerTerminal, start: StartTerminal) -> Session:
    if start.watch and not asked.may_watch:
        raise NotAllowed("only operators look on")
    if start.watch:
        return runner.terminals.latest(held.key, start.session)
    if start.session:
        return runner.terminals.find(held.key, start.session, asked.user)
    return await runner.terminals.begin(held, asked.user, start)


CHANNELS = [on_channel(stream_api.TERMINAL_AT_RUNNER, terminal)]
