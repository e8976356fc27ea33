"""Records on a connection: `>BI` (kind, length) and so many bytes.

0 bytes, 1 text (UTF-8), 2 close (`>H` code, then the reason in UTF-8), 3 nothing (of no length, to be overlooked).
"""

import struct
from collections.abc import Callable

from kohakuriver.wire.line import HEAD_BYTES
from kohakuriver.wire.sockets import MAX_MESSAGE_BYTES

BYTES, TEXT, CLOSE, NOTHING = 0, 1, 2, 3
HEADER = struct.Struct(">BI")
_CODE = struct.Struct(">H")
assert HEADER.size == HEAD_BYTES


class NotRecords(ValueError):
    """The peer sends what is no record."""


def record(kind: int, body: bytes) -> bytes:
    """One record."""
    return HEADER.pack(kind, len(body)) + body


def closing(code: int, reason: str) -> bytes:
    """The record that closes."""
    return record(CLOSE, _CODE.pack(code) + reason.encode())


def read_closing(body: bytes) -> tuple[int, str]:
    """Code and reason; raises NotRecords."""
    try:
        return _CODE.unpack_from(body)[0], body[_CODE.size :].decode()
    except (struct.error, UnicodeDecodeError):
        raise NotRecords("a close record needs a code and a reason") from None


def read_header(header: bytes | bytearray) -> tuple[int, int]:
    """Kind and length; raises NotRecords for what cannot be one."""
    kind, length = HEADER.unpack(header)
    if kind > NOTHING or length > (0 if kind == NOTHING else MAX_MESSAGE_BYTES):
        raise NotRecords(f"there is no record of the kind {kind} and {length} bytes")
    return kind, length


def wrapped(block: memoryview) -> memoryview:
    """What was read, as the body of a record whose header stands in the room before it."""
    HEADER.pack_into(block, 0, BYTES, len(block) - HEAD_BYTES)
    return block


class Borders:
    """Whether what was handed on, in any cuts, ends where a record ends."""

    def __init__(self) -> None:
        self._head, self._left = bytearray(), 0

    @property
    def is_at_one(self) -> bool:
        return not self._head and not self._left

    def pass_by(self, data: memoryview) -> None:
        """So much more was handed on; whether it is records is the reader's business."""
        while data:
            if self._left:
                step = min(self._left, len(data))
                self._left -= step
            else:
                step = HEAD_BYTES - len(self._head)
                self._head += data[:step]
                if len(self._head) == HEAD_BYTES:
                    self._left = HEADER.unpack(self._head)[1]
                    self._head.clear()
            data = data[step:]


class Unwrapping:
    """Takes records in any cuts, and gives on what is in them as it comes; an empty one says that there is no more.

    It wants no more after a record that closes, or after what is none; then `closed` is what the one said, or `is_wrong`.
    """

    def __init__(self, give: Callable[[memoryview], None], end: Callable[[], None]) -> None:
        self._give, self._end = give, end
        self._head, self._told = bytearray(), bytearray()
        self._kind, self._left = BYTES, 0
        self._has_ended = False
        self.closed: tuple[int, str] | None = None
        self.is_wrong = False

    def take(self, data: memoryview) -> bool:
        """Whether more is wanted."""
        try:
            while data and self.closed is None:
                data = self._body(data) if self._left else self._header(data)
        except NotRecords:
            self.is_wrong = True
            return False
        return self.closed is None

    def _header(self, data: memoryview) -> memoryview:
        wanted = HEAD_BYTES - len(self._head)
        self._head += data[:wanted]
        if len(self._head) == HEAD_BYTES:
            self._kind, self._left = read_header(self._head)
            self._head.clear()
            if not self._left:
                self._empty()
        return data[wanted:]

    def _empty(self) -> None:
        if self._kind == CLOSE:
            raise NotRecords("a close record needs a code")
        if not self._has_ended and self._kind != NOTHING:
            self._has_ended = True
            self._end()

    def _body(self, data: memoryview) -> memoryview:
        part = data[: self._left]
        self._left -= len(part)
        if self._kind == CLOSE:
            self._told += part
            if not self._left:
                self.closed = read_closing(bytes(self._told))
        elif self._has_ended:
            raise NotRecords("there was to be no more")
        else:
            self._give(part)
        return data[len(part) :]
