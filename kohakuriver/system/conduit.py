"""One connection into the network of a workload: bytes of TCP, or datagrams of UDP."""

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

from kohakuriver.system import netns

BLOCK_BYTES = 256 * 1024
CONNECT_SECONDS, CLOSE_SECONDS = 10.0, 2.0
MOST_DATAGRAMS = 256


class Conduit(Protocol):
    """What can be sent there and what comes back; nobody is told when the other side does not listen any more."""

    async def read(self) -> bytes:
        """The next bytes (of TCP) or the next datagram; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send, no faster than it is taken; raises ConnectionResetError when there is nobody."""

    async def write_eof(self) -> None:
        """Nothing more will be sent."""

    async def close(self) -> None:
        """Let go of it."""


async def connect(pid: int, port: int, proto: str) -> Conduit:
    """A connection to a port of the process's network; raises as `netns.connect` does."""
    if proto == "udp":
        return await Datagrams.over(await netns.connect_anywhere(pid, port, socket.SOCK_DGRAM, CONNECT_SECONDS))
    return Stream(*await asyncio.open_connection(sock=await stream(pid, port), limit=BLOCK_BYTES // 2))


async def stream(pid: int, port: int) -> socket.socket:
    """The same, of TCP, as a non-blocking socket."""
    made = await netns.connect_anywhere(pid, port, socket.SOCK_STREAM, CONNECT_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Stream:
    """TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        with suppress(OSError):
            return await self._reader.read(BLOCK_BYTES)
        return b""

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        with suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass


class Datagrams(asyncio.DatagramProtocol):
    """UDP: there is no end and no connection, and nobody may be there yet; what is not fetched in time is lost."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(MOST_DATAGRAMS)
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def over(cls, made: socket.socket) -> "Datagrams":
        """On a socket that is connected."""
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(cls, sock=made)
        protocol._transport = transport
        return protocol

    def datagram_received(self, data: bytes, addr: object) -> None:
        with suppress(asyncio.QueueFull):
            if data:
                self._heard.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        while self._heard.full():
            self._heard.get_nowait()
        self._heard.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._heard.get()

    async def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)

    async def write_eof(self) -> None:
        """Datagrams have no end."""

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
