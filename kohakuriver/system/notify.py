"""What a service tells its service manager: ready, how it is, still alive, going."""

import logging
import os
import socket
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)

_MICROSECONDS = 1_000_000


class Notifier:
    """The service manager's ear (protocol: sd_notify(3)); without an address every message goes nowhere.

    `address` is a path, or a name after `@` for Linux's abstract sockets. `watchdog_interval_seconds` is how often
    `watchdog` should be called, half of what the manager waits, or None when it does not watch. A message that cannot
    be sent is logged, once, and is never an error: the service matters more than the news about it.
    """

    def __init__(self, address: str | None, watchdog_interval_seconds: float | None = None) -> None:
        self._address = address
        self._complained = False
        self.watchdog_interval_seconds = watchdog_interval_seconds if address else None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and take them out, so that no child speaks for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        meant_for_us = pid in ("", str(os.getpid()))
        watched = meant_for_us and microseconds.isdecimal() and int(microseconds) > 0
        interval = int(microseconds) / _MICROSECONDS / 2 if watched else None
        return cls(address if address[:1] in ("/", "@") else None, interval)

    def ready(self, status: str) -> None:
        """Everything that the service needs at start is there; `status` is one line for people."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Tell people, in one line, how the service is."""
        self._send(_status(status))

    def watchdog(self) -> None:
        """The service has looked at itself and found itself alive."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "stopping") -> None:
        """The service goes, on purpose."""
        self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as ear:
                ear.sendto("\n".join(lines).encode(errors="replace"), address)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("cannot reach the service manager address=%s error=%s", self._address, error)


def _status(text: str) -> str:
    # A line break would begin another assignment of the protocol.
    return "STATUS=" + " ".join(text.split())
