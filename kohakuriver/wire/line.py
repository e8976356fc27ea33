"""A connection whose bytes are awaited, or poured straight on into another connection. Standard library only.

Pouring happens in the callback that read the bytes, out of one block that is used again and again: no task wakes and
nothing is copied while the other side takes what it is given. While it does not, nothing more is read.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

HEAD_BYTES = 5  # in front of what was read there is room for the header of a record
SMALLEST_BLOCK_BYTES, LARGEST_BLOCK_BYTES = 8 * 1024, 256 * 1024
MOST_UNREAD_BYTES = 256 * 1024
BUSY_BYTES, REST_SECONDS = 4 * 1024, 0.001
GOODBYE_SECONDS = 2.0
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
LOOK_SECONDS, SILENT_MS, MOST_PROBES = 5.0, 30_000, 3
_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: close without patience, so that the peer is told of it
_TCP_INFO = struct.Struct("=3xB4x13I")  # struct tcp_info (tcp(7)): probes, and the words up to last_ack_recv
TCP_INFO_BYTES = _TCP_INFO.size
_PROBES, _UNACKED, _LAST_ACK_RECEIVED = 0, 5, 13
Pour = Callable[[memoryview], bool]  # takes room for a header and what was read behind it; whether it wants more


class Line(asyncio.BufferedProtocol):
    """One end of a connection; `welcome` is called once it is made."""

    def __init__(self, welcome: "Callable[[Line], object] | None" = None) -> None:
        self._welcome = welcome
        self._made: asyncio.Transport | None = None
        self._block, self._block_bytes = memoryview(b""), SMALLEST_BLOCK_BYTES
        self._heard = bytearray()
        self._pour: Pour | None = None
        self._into: Line | None = None
        self._feeder: Line | None = None  # what pours into this one
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._next_look: asyncio.TimerHandle | None = None
        self.has_ended = False  # nothing more will come
        self.ended_well = False  # because the other side said so
        self.is_lost = False  # closed by either side, for whatever reason
        self.was_left = False  # by the other side, and not by us

    @property
    def transport(self) -> asyncio.Transport:
        """What carries it, once it is made; of a pipe only one half is there."""
        assert self._made is not None
        return self._made

    @property
    def is_gone(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.is_lost or self.transport.is_closing()

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = cast(asyncio.Transport, transport)
        self._room.set()
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=1, low=0)
        if watch_peer(transport):
            self._look_later()
        if self._welcome is not None:
            self._welcome(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if len(self._block) != HEAD_BYTES + self._block_bytes:
            self._block = memoryview(bytearray(HEAD_BYTES + self._block_bytes))
        return self._block[HEAD_BYTES:]

    def buffer_updated(self, nbytes: int) -> None:
        self.take(self._block[: HEAD_BYTES + nbytes])
        if self._into is not None and BUSY_BYTES <= nbytes < self._block_bytes:
            self._rest()
        self._block_bytes = fitting(self._block_bytes, nbytes)
        if self._into is not None and self._into.transport.get_write_buffer_size():
            self._block = memoryview(b"")  # it belongs to who has not sent it yet

    def data_received(self, data: bytes) -> None:
        """Of pipes, which know no blocks."""
        self.take(memoryview(bytearray(HEAD_BYTES) + data))

    def eof_received(self) -> bool:
        self.has_ended = self.ended_well = self.was_left = True
        self._news.set()
        return self.transport.get_extra_info("sslcontext") is None  # of TLS nobody can end one direction

    def pause_writing(self) -> None:
        self._room.clear()
        if self._feeder is not None:
            self._feeder._hold()

    def resume_writing(self) -> None:
        self._room.set()
        if self._feeder is not None:
            self._feeder._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = self.is_lost = True
        self.was_left |= exc is not None
        if self._next_look is not None:
            self._next_look.cancel()
        self._news.set()
        self._room.set()
        if self._feeder is not None:
            self._feeder._news.set()

    # ---- reading

    async def some(self) -> bytes:
        """What is there, as soon as there is anything; empty at the end."""
        await self._until(lambda: bool(self._heard))
        return self._cut(len(self._heard))

    async def exactly(self, size: int) -> bytes:
        """So many bytes; raises EOFError when there are not so many."""
        await self._until(lambda: len(self._heard) >= size)
        if len(self._heard) < size:
            raise EOFError("it ended")
        return self._cut(size)

    async def through(self, mark: bytes) -> bytes:
        """All up to a mark and with it; raises EOFError, and ValueError when it is too far away."""
        await self._until(lambda: mark in self._heard or len(self._heard) >= MOST_UNREAD_BYTES)
        end = self._heard.find(mark)
        if end < 0:
            raise EOFError("it ended") if self.has_ended else ValueError("it is too long")
        return self._cut(end + len(mark))

    async def pour(self, pour: Pour, into: "Line") -> None:
        """Hand on what comes until no more does, `pour` wants no more or `into` is gone; nobody else reads or writes meanwhile.

        The last of it may still wait to be sent: `into.flushed()`.
        """
        heard, self._heard = self._heard, bytearray()
        self._pour, self._into, into._feeder = pour, into, self
        try:
            if heard:
                self.take(memoryview(bytearray(HEAD_BYTES) + heard))
            if into._room.is_set():
                self._go_on()
            while self._pour is not None and not self.has_ended and not into.is_gone:
                await self._heed_news()
        finally:
            self._pour = self._into = into._feeder = None

    def take(self, block: memoryview) -> None:
        """Here is more: room for a header, and what was heard behind it."""
        if self._pour is None:
            self._heard += block[HEAD_BYTES:]
            if len(self._heard) >= MOST_UNREAD_BYTES:
                self._hold()
        elif self._pour(block):
            return
        else:
            self._pour = None
        self._news.set()

    async def _until(self, enough: Callable[[], bool]) -> None:
        while not enough() and not self.has_ended:
            self._go_on()
            await self._heed_news()

    async def _heed_news(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _cut(self, size: int) -> bytes:
        with memoryview(self._heard) as view:
            data = bytes(view[:size])
        del self._heard[:size]
        return data

    def _rest(self) -> None:
        """Let more come in a busy stream before the next look: each costs as much for little as for much."""
        self._hold()
        asyncio.get_running_loop().call_later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        if self._into is None or self._into._room.is_set():
            self._go_on()

    def _hold(self) -> None:
        if not self.is_gone:
            self.transport.pause_reading()

    def _go_on(self) -> None:
        if not self.is_gone:
            self.transport.resume_reading()

    # ---- writing

    def put(self, data: bytes | memoryview) -> None:
        """Send, behind all that waits already; nothing happens when it is gone."""
        if not self.is_gone:
            self.transport.write(data)

    async def write(self, data: bytes) -> None:
        """Send, no faster than it is taken; raises ConnectionResetError when it is gone."""
        if self.is_gone:
            raise ConnectionResetError("the connection is closed")
        self.transport.write(data)
        await self.flushed()

    async def flushed(self) -> None:
        """Wait until all that was written is on its way; raises ConnectionResetError when it is gone."""
        await self._room.wait()
        if self.is_lost:
            raise ConnectionResetError("the connection is closed")

    def end(self) -> None:
        """Nothing more will be sent; where that cannot be said nothing happens."""
        if not self.is_gone and self.transport.can_write_eof():
            self.transport.write_eof()

    async def close(self) -> None:
        """Close it, with limited patience for what is still to be sent."""
        self.transport.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while not self.is_lost:
                    await self._heed_news()
                return
        self._abort()

    def reset(self) -> None:
        """Close it so that it looks broken; nothing happens when it is closed."""
        if self.is_lost:
            return
        sock = self.transport.get_extra_info("socket")
        if is_tcp(sock):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._abort()

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
        else:
            self.transport.close()  # of a pipe from which one reads

    # ---- a peer that is gone without a word

    def _look_later(self) -> None:
        self._next_look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        try:
            said = self.transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size
            )
        except OSError:
            return
        if answers(said):
            self._look_later()
        else:
            self.transport.abort()


async def connected(sock: socket.socket) -> Line:
    """A socket that is connected already."""
    _, line = await asyncio.get_running_loop().create_connection(Line, sock=sock)
    return line


def fitting(block_bytes: int, read_bytes: int) -> int:
    """The size of the next block: it grows with what comes at once, and shrinks when little does."""
    if read_bytes == block_bytes:
        return min(2 * block_bytes, LARGEST_BLOCK_BYTES)
    if read_bytes < block_bytes // 16:
        return max(block_bytes // 2, SMALLEST_BLOCK_BYTES)
    return block_bytes


def is_tcp(sock: socket.socket | None) -> bool:
    """Whether that is a connection over a network."""
    return sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)


def watch_peer(transport: asyncio.BaseTransport) -> bool:
    """Have the kernel ask an idle peer whether it is there; whether it can be asked."""
    sock = transport.get_extra_info("socket")
    if not is_tcp(sock):
        return False
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return True


def answers(tcp_info: bytes) -> bool:
    """Whether the peer acknowledges what it is sent, or at least that it wants nothing now (which may last).

    TCP_USER_TIMEOUT would do as well, but it also ends connections whose reader takes a rest.
    """
    said = _TCP_INFO.unpack(tcp_info)
    waits = said[_UNACKED] > 0 or said[_PROBES] > MOST_PROBES
    return not (waits and said[_LAST_ACK_RECEIVED] > SILENT_MS)
