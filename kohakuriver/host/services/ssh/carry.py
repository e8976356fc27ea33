"""Between an SSH session and a socket: a process or files, no faster than either side listens."""

import asyncio
import signal
from contextlib import suppress
from typing import TypeAlias

import asyncssh

from kohakuriver.model import terminal
from kohakuriver.model.terminal import Kind
from kohakuriver.wire.sockets import Socket, error_in

CHUNK_BYTES = 256 * 1024
GONE = (ConnectionResetError, BrokenPipeError, asyncssh.Error)
Reader: TypeAlias = asyncssh.SSHReader[bytes]
Writer: TypeAlias = asyncssh.SSHWriter[bytes]
Process: TypeAlias = asyncssh.SSHServerProcess[bytes]


async def carry_files(process: Process, socket: Socket) -> None:
    """Hand bytes on in both directions until both have ended; the client wants to be told that all went well."""
    writer = process.stdout
    try:
        await asyncio.gather(
            _up(process.stdin, socket),
            _down(socket, process),
            _until_closed(writer, socket),
        )
    finally:
        writer.close()
        await socket.hang_up()


async def _up(reader: Reader, socket: Socket) -> None:
    with suppress(*GONE):
        while data := await reader.read(CHUNK_BYTES):
            await socket.send(data)
        await socket.send(b"")


async def _down(socket: Socket, process: Process) -> None:
    writer = process.stdout
    with suppress(*GONE):
        while (data := await socket.receive()) is not None:
            if not data:
                writer.write_eof()
                continue
            assert isinstance(data, bytes)
            writer.write(data)
            await writer.drain()
    _part(process, socket)


async def _until_closed(writer: Writer, socket: Socket) -> None:
    """When the channel is no more, the socket has nobody left."""
    with suppress(*GONE):
        await writer.channel.wait_closed()
    await socket.hang_up()


async def carry_process(process: Process, socket: Socket) -> None:
    """Let somebody speak with a process until it is over; it ends when he is gone."""
    try:
        await asyncio.gather(
            _to_process(process, socket), _from_process(socket, process), _until_closed(process.stdout, socket)
        )
    finally:
        process.close()
        await socket.hang_up()


async def _to_process(process: Process, socket: Socket) -> None:
    with suppress(*GONE):
        while True:
            try:
                data = await process.stdin.read(CHUNK_BYTES)
            except asyncssh.TerminalSizeChanged as now:
                if now.height and now.width:  # else it has no size
                    await socket.send(terminal.resize_frame(now.height, now.width))
                continue
            except asyncssh.SignalReceived as asked:
                await _signal(socket, asked.signal)
                continue
            except asyncssh.BreakReceived:
                await _signal(socket, "INT")
                continue
            if not data:
                return await socket.send(terminal.frame(Kind.END_INPUT))
            await socket.send(terminal.frame(Kind.INPUT, data))


async def _signal(socket: Socket, name: str) -> None:
    number = getattr(signal, f"SIG{name}", None)
    if isinstance(number, signal.Signals):  # else it is none that this system knows
        await socket.send(terminal.frame(Kind.SIGNAL, bytes([number])))


async def _from_process(socket: Socket, process: Process) -> None:
    with suppress(*GONE):
        while (message := await socket.receive()) is not None:
            kind, payload = terminal.split(message)
            if kind is Kind.EXIT:
                return process.exit(terminal.read_exit(payload))
            writer = process.stderr if kind is Kind.ERRORS else process.stdout
            writer.write(payload)
            await writer.drain()
    _tell_why(process, error_in(socket.close_code, socket.close_reason) or "the connection to the node broke")


def _part(process: Process, socket: Socket) -> None:
    """Files are all right when their end was said."""
    if broken := error_in(socket.close_code, socket.close_reason):
        _tell_why(process, broken)
    else:
        process.exit(0)


def _tell_why(process: Process, broken: object) -> None:
    with suppress(*GONE):
        process.stderr.write(f"kohakuriver: {broken}\r\n".encode())
    process.exit(255)
