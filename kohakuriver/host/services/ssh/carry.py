"""Between an SSH channel and a socket: bytes both ways, no faster than either side listens."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import asyncssh

from kohakuriver.model.errors import BadRequest
from kohakuriver.model.process_frames import STDERR, STDIN, STDOUT, Exited, Resize, Signal, read_told, write_told
from kohakuriver.wire.sockets import Socket

CHUNK_BYTES = 256 * 1024
GONE = (ConnectionResetError, BrokenPipeError, asyncssh.Error)
Reader: TypeAlias = asyncssh.SSHReader[bytes]
Writer: TypeAlias = asyncssh.SSHWriter[bytes]
Process: TypeAlias = asyncssh.SSHServerProcess[bytes]


async def carry(reader: Reader, writer: Writer, socket: Socket) -> None:
    """Hand bytes on in both directions until both have ended, or either side is gone."""
    try:
        await asyncio.gather(_up(reader, socket), _down(socket, writer), _until_closed(writer, socket))
    finally:
        writer.close()
        await socket.hang_up()


async def carry_files(process: Process, socket: Socket) -> None:
    """The same for files, whose client wants to be told that all went well."""
    writer = process.stdout
    try:
        await asyncio.gather(
            _up(process.stdin, socket), _down(socket, writer, lambda: process.exit(0)), _until_closed(writer, socket)
        )
    finally:
        writer.close()
        await socket.hang_up()


async def _up(reader: Reader, socket: Socket) -> None:
    with suppress(*GONE):
        while data := await reader.read(CHUNK_BYTES):
            await socket.send(data)
        await socket.send(b"")


async def _down(socket: Socket, writer: Writer, end: Callable[[], None] | None = None) -> None:
    with suppress(*GONE):
        while (data := await socket.receive()) is not None:
            if not data:
                writer.write_eof()
                continue
            assert isinstance(data, bytes)
            writer.write(data)
            await writer.drain()
    (end or writer.close)()


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
                await socket.send(write_told(Resize(rows=now.height, columns=now.width)))
                continue
            except asyncssh.SignalReceived as asked:
                await socket.send(write_told(Signal(asked.signal)))
                continue
            except asyncssh.BreakReceived:
                await socket.send(write_told(Signal("INT")))
                continue
            await socket.send(STDIN + data)
            if not data:
                return


async def _from_process(socket: Socket, process: Process) -> None:
    writers = {STDOUT: process.stdout, STDERR: process.stderr}
    with suppress(*GONE):
        while (message := await socket.receive()) is not None:
            if isinstance(message, str):
                return _ended(process, message)
            writer, data = writers[message[:1]], message[1:]
            writer.write(data)
            await writer.drain()
    process.stderr.write(b"kohakuriver: the connection to the node broke\r\n")
    process.exit(255)


def _ended(process: Process, message: str) -> None:
    told = read_told(message)
    if not isinstance(told, Exited):
        raise BadRequest("only an exit comes from a process")
    process.exit(told.code)
