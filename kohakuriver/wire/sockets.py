"""What a socket is: messages both ways until one side closes, whatever carries them.

A message is bytes or text. Empty bytes are a message like any other; where a channel carries one byte stream they mean
that the sender will send no more (half-close). A socket that ends badly ends with 4000 + the HTTP status of the error,
and with `CODE: MESSAGE` as the reason.
"""

from collections.abc import Sequence
from typing import Protocol

from kohakuriver.model.errors import NodeUnreachable, RiverError, from_wire

NORMAL, GOING_AWAY, TOO_BIG = 1000, 1001, 1009
LOST = 1006  # nobody closed: the connection broke
REFUSED = 4000
LOGIN_ENDED = 4401
MAX_MESSAGE_BYTES = 1 << 20
MAX_REASON_BYTES = 120
Message = bytes | str


class Socket(Protocol):
    """One end of a socket.

    `offers` are the protocols that the opener speaks, `protocol` the one that was chosen. `close_code` and
    `close_reason` stand once `receive` has given None: what the peer said, `LOST` when it said nothing.
    """

    offers: Sequence[str]
    protocol: str
    close_code: int
    close_reason: str

    @property
    def carrier(self) -> "Socket":
        """The socket that does the work, once it is open."""
        return self

    async def open(self, protocol: str = "") -> None:
        """Agree to the opening, if that has not happened yet; until then an error is an HTTP answer."""

    async def receive(self) -> Message | None:
        """The next message; None when the peer has closed or is gone."""

    async def send(self, message: Message) -> None:
        """Send a message, waiting while the peer reads slower than we write; raises ConnectionResetError when it is gone."""

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye and hang up; nothing happens when it is closed."""

    async def hang_up(self) -> None:
        """Close without a word, so that it looks broken; nothing happens when it is closed."""


def closing_of(error: RiverError) -> tuple[int, str]:
    """The close code and the reason that tell an error."""
    told = f"{error.code}: {error}".encode()[:MAX_REASON_BYTES]
    return REFUSED + error.status, told.decode("utf-8", "ignore")


def error_in(code: int, reason: str) -> RiverError | None:
    """The error that a socket was closed with; None when it ended well."""
    if code in (NORMAL, GOING_AWAY):
        return None
    word, found, message = reason.partition(": ")
    if code >= REFUSED and found:
        return from_wire(word, message)
    return NodeUnreachable(reason or "the connection broke")
