"""Whether who dialled a server is still there, though what he sent lies unread, or he does not read what is sent.

The kernel knows, and no byte need be read for that. A caller who is gone may leave so much that nobody comes to the end
of it; so he is poked, and a machine on which nobody has the connection any more answers that with a reset. It forgets
what it still had to send, too: so only servers poke. Callers stay until they have all that they want, while a server
may end with its last words on their way.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable

from kohakuriver.wire.line import TCP_INFO_BYTES, answers, watch_peer

PULSE_SECONDS, FAREWELL_SECONDS = 5.0, 30.0
CLOSED, CLOSE_WAIT = 7, 8  # states in `struct tcp_info`, of which it is the first byte
_INT = struct.Struct("@i")


class Pulse:
    """Looks again and again; of a caller who is gone the connection is broken, and `gone` is called.

    `poke` writes what means nothing. It is called when something lies unread, or (`pokes_always`) each time, but never
    while something else still waits to be written.
    """

    def __init__(
        self, transport: asyncio.Transport, poke: Callable[[], None], gone: Callable[[], None], *, pokes_always: bool
    ) -> None:
        self._transport, self._poke, self._gone, self._pokes_always = transport, poke, gone, pokes_always
        self._loop = asyncio.get_running_loop()
        self._stayed_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if watch_peer(transport):
            self._wait()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(PULSE_SECONDS, self._look)

    def _look(self) -> None:
        sock: socket.socket = self._transport.get_extra_info("socket")
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            (unread,) = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(_INT.size)))
        except OSError:
            return  # it was closed here
        if info[0] != CLOSE_WAIT:
            self._stayed_at = self._loop.time()
        if is_gone(info, self._loop.time() - self._stayed_at):
            self._transport.abort()
            return self._gone()
        if (unread or self._pokes_always) and not self._transport.get_write_buffer_size():
            self._poke()
        self._wait()


def is_gone(tcp_info: bytes, left_seconds: float) -> bool:
    """Whether nobody is there, though the connection may look open; `left_seconds` ago he said that he says no more."""
    return tcp_info[0] == CLOSED or left_seconds >= FAREWELL_SECONDS or not answers(tcp_info)
