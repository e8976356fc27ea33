"""SSH connections and channels in the shape of other connections: a channel is poured as every line is."""

import asyncio
from typing import cast

import asyncssh
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import SSHPacketLogger

from kohakuriver.wire.line import HEAD_BYTES, LARGEST_BLOCK_BYTES, Line

MOST_UNSENT_BYTES = 64 << 20


class Connection(asyncssh.SSHServerConnection):
    """A connection that sends nothing for nothing, and nothing more to a client that asks and asks and does not read.

    How much may be under way is for the client to say, channel by channel (RFC 4254, 5.2), and asyncssh believes him.

    Before each packet asyncssh sends an empty one, which hides what CBC ciphers would show. There are none here
    (`algorithms.CIPHERS`), and it costs as many calls of the kernel as the bytes do.
    """

    _carrier: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._carrier = cast(asyncio.WriteTransport, transport)
        super().connection_made(transport)

    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)
            if self._carrier.get_write_buffer_size() > MOST_UNSENT_BYTES:
                self.abort()


class Channel(asyncssh.SSHTCPSession[bytes], asyncio.Transport):
    """Between asyncssh, which sees a session, and a line, which sees a transport: `line`, which may be used once it has room."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self._channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self._heard = bytearray()
        self._has_said_all = self._is_closed = False

    @property
    def channel(self) -> asyncssh.SSHTCPChannel[bytes]:
        assert self._channel is not None
        return self._channel

    # ---- what asyncssh tells

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = chan
        self.line.connection_made(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if not self._heard:
            asyncio.get_running_loop().call_soon(self._tell)
            self._heard += bytes(HEAD_BYTES)
        self._heard += data
        if len(self._heard) >= LARGEST_BLOCK_BYTES:
            self._tell()

    def _tell(self) -> None:
        """Hand on the packets that came at once as if they had been one."""
        heard, self._heard = self._heard, bytearray()
        if heard:
            self.line.take(memoryview(heard))

    def eof_received(self) -> bool:
        self._tell()
        return self.line.eof_received()

    def pause_writing(self) -> None:
        self.line.pause_writing()

    def resume_writing(self) -> None:
        self.line.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell()
        self.line.connection_lost(exc)

    # ---- what the line asks for

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.channel.write(data)  # which makes a copy of whatever it is

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._has_said_all = True
        self.channel.write_eof()

    def pause_reading(self) -> None:
        self.channel.pause_reading()

    def resume_reading(self) -> None:
        self.channel.resume_reading()

    def is_closing(self) -> bool:
        """Not yet when it has only said all: to asyncssh that is the same."""
        return self._is_closed or (self.channel.is_closing() and not self._has_said_all)

    def close(self) -> None:
        self._is_closed = True
        self.channel.close()

    def abort(self) -> None:
        self._is_closed = True
        self.channel.abort()

    def get_write_buffer_size(self) -> int:
        return self.channel.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.channel.set_write_buffer_limits(high, low)
