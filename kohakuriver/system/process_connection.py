"""The keeper's event loop and its connections: JSON lines over unix sockets, without asyncio, to stay small to fork."""

import json
import select
import socket
from collections.abc import Callable
from typing import Any

from kohakuriver.model.errors import RiverError

_BLOCK_BYTES = 1 << 16
_UNREAD_LIMIT_BYTES = 1 << 26

Message = dict[str, Any]


class Reactor:
    """Calls a handler when its descriptor is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, descriptor: int, handler: Callable[[int], None], mask: int = select.EPOLLIN) -> None:
        """Call `handler(mask of what is ready)` from now on."""
        self._epoll.register(descriptor, mask)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, mask: int) -> None:
        """Be interested in something else."""
        self._epoll.modify(descriptor, mask)

    def unwatch(self, descriptor: int) -> None:
        """Call no more; before the descriptor is closed."""
        self._epoll.unregister(descriptor)
        del self._handlers[descriptor]

    @property
    def last_descriptor(self) -> int:
        """The highest that is watched."""
        return max(self._handlers)

    def run_once(self, timeout_seconds: float | None) -> None:
        """Wait for something, and handle all that is ready."""
        for descriptor, ready in self._epoll.poll(timeout_seconds):
            if descriptor in self._handlers:  # an earlier handler may have unwatched it
                self._handlers[descriptor](ready)


class Connection:
    """One engine at the other end; `heard` gets (connection, request), `gone` the connection once it is closed."""

    def __init__(
        self,
        peer: socket.socket,
        reactor: Reactor,
        heard: Callable[["Connection", Message], None],
        gone: Callable[["Connection"], None],
    ) -> None:
        self._peer, self._reactor, self._heard, self._gone = peer, reactor, heard, gone
        self._unread, self._unsent = b"", b""
        peer.setblocking(False)
        reactor.watch(peer.fileno(), self._ready)

    def answer(self, number: int, outcome: object) -> None:
        """Answer a request with a value or with an error."""
        if isinstance(outcome, RiverError):
            self.send({"id": number, "error": [outcome.code, str(outcome), outcome.details]})
        else:
            self.send({"id": number, "value": outcome})

    def send(self, message: Message) -> None:
        """Send it, or keep it until the other end reads; who never reads is cut off."""
        if self._peer.fileno() < 0:
            return
        was_idle = not self._unsent
        self._unsent += json.dumps(message).encode() + b"\n"
        if was_idle:
            self._flush()
        if len(self._unsent) > _UNREAD_LIMIT_BYTES:
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self._peer.fileno() >= 0:
            self._reactor.unwatch(self._peer.fileno())
            self._peer.close()
            self._gone(self)

    def _ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush()
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and self._peer.fileno() >= 0:
            self._read()

    def _read(self) -> None:
        try:
            data = self._peer.recv(_BLOCK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._heard(self, json.loads(line))

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._peer.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._reactor.change(self._peer.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))
