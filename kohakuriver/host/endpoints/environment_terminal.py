"""A shell in an environment's container on the host: one process for one socket, which ends with it."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.host.state import Host
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import codec, docker_api
from kohakuriver.model import terminal as frames
from kohakuriver.model.access import Caller
from kohakuriver.model.docker_api import OpenShell
from kohakuriver.model.errors import NotFound
from kohakuriver.model.stream_api import StartTerminal, TerminalOpened
from kohakuriver.model.terminal import EndInput, Input, Kind, Leave, Resize, Said, Signal
from kohakuriver.system.engine_exec import ERR, ExecSession, ExecSpec
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.terminals import start_of

FRAME_BYTES = 128 * 1024
DEFAULT_TERM = "xterm-256color"
# The container of an environment has a shell, or it would not run.
BEST_SHELL = ("/bin/sh", "-c", "exec $(command -v bash || command -v ash || echo /bin/sh)")


class Left(Exception):
    """The person has gone, whatever the process does."""


@dataclass(slots=True)
class Seat:
    """One person at one process; programs are spoken with in bytes, browsers in text."""

    socket: Socket
    process: ExecSession
    in_bytes: bool
    has_left: bool = False

    async def serve(self) -> None:
        """Until the process has ended or the person has gone; raises BadRequest for what cannot be understood."""
        with suppress(Left):
            await asyncio.gather(self._tell(), self._hear())

    async def _tell(self) -> None:
        text = frames.TextOut()
        while (piece := await self.process.read()) is not None:
            kind, data = piece
            for at in range(0, len(data), FRAME_BYTES):
                part = data[at : at + FRAME_BYTES]
                if self.in_bytes:
                    await self.socket.send(frames.frame(Kind.ERRORS if kind == ERR else Kind.OUTPUT, part))
                elif told := text.output(part):
                    await self.socket.send(told)
        if self.has_left:
            return
        code = await self.process.wait()
        await self.socket.send(frames.exit_frame(code) if self.in_bytes else frames.exit_text(code))
        await self.socket.close()

    async def _hear(self) -> None:
        try:
            await self._take_all()
        finally:
            self.has_left = True
        raise Left

    async def _take_all(self) -> None:
        taken = 0
        while (message := await self.socket.receive()) is not None:
            said: Said = frames.read_bytes(message) if self.in_bytes else frames.read_text(message)
            match said:
                case Input(data):
                    await self.process.write(data)
                    taken += len(data)
                    if self.in_bytes:
                        await self.socket.send(frames.total_frame(Kind.TAKEN, taken))
                case Resize(rows, columns):
                    await self.process.resize(rows, columns)
                case Signal(number):
                    await self.process.signal(number)
                case EndInput():
                    await self.process.write_eof()
                case Leave():
                    return


async def terminal(host: Host, caller: Caller, asked: OpenShell, socket: Socket) -> None:
    start = StartTerminal(rows=asked.rows, columns=asked.columns, shell=asked.shell, session=asked.session)
    in_bytes = frames.BYTES in socket.offers
    if in_bytes:
        await socket.open(frames.BYTES)
        start = await start_of(socket)
    if start.session or start.watch:
        raise NotFound("the session has ended")  # it ended with its connection
    process = await host.environments.run(asked.name, _spec(start))
    try:
        await socket.open(frames.TEXT if frames.TEXT in socket.offers else "")
        host.auth.notes.add(caller, Deed("terminal.open", f"environment:{asked.name}"))
        if in_bytes:
            opened = TerminalOpened(session=secrets.token_hex(16), at=0, taken=0)
            await socket.send(frames.frame(Kind.OPENED, codec.encode_text(opened).encode()))
        await Seat(socket, process, in_bytes).serve()
    finally:
        await asyncio.shield(process.close())  # once: a close that was cut cannot be done again


def _spec(start: StartTerminal) -> ExecSpec:
    return ExecSpec(
        argv=tuple(start.argv) or ((start.shell,) if start.shell else BEST_SHELL),
        tty=start.tty,
        env={"TERM": start.term or DEFAULT_TERM} if start.tty else {},
        rows=start.rows,
        columns=start.columns,
    )


CHANNELS = [on_channel(docker_api.ENV_TERMINAL, terminal)]
