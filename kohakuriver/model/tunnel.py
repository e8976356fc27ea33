"""The frames by which many connections share one socket to a port: `>BBIH` (type, proto, client, port) and a payload.

The client chooses ids. Whoever offers the protocol FLOW agrees to two more types: WINDOW (`>I`: so many bytes more may be sent on that
connection; each direction begins with `WINDOW_BYTES`) and EOF (no more will be sent on it; the other direction goes on).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from kohakuriver.model.errors import BadRequest

STREAM = "kohakuriver.forward.stream"  # one connection, its bytes (or datagrams) as they are; empty bytes: half-close
FLOW = "kohakuriver.forward.flow"
WINDOW_BYTES = 256 * 1024
MAX_PAYLOAD_BYTES = 512 * 1024
TCP, UDP = 0, 1
_HEADER, _AMOUNT = struct.Struct(">BBIH"), struct.Struct(">I")


class Type(IntEnum):
    """What a frame is."""

    CONNECT = 1
    CONNECTED = 2
    DATA = 3
    CLOSE = 4
    ERROR = 5
    PING = 6
    PONG = 7
    WINDOW = 8
    EOF = 9


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `payload` of ERROR is UTF-8 text."""

    type: Type
    client: int = 0
    proto: int = TCP
    port: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        return _HEADER.pack(self.type, self.proto, self.client, self.port) + self.payload

    @property
    def amount(self) -> int:
        """How much a WINDOW grants; raises BadRequest."""
        if len(self.payload) != _AMOUNT.size:
            raise BadRequest("frame: WINDOW needs four bytes")
        amount: int = _AMOUNT.unpack(self.payload)[0]
        return amount

    def answer(self, kind: Type, payload: bytes = b"") -> "Frame":
        """A frame of the same connection."""
        return Frame(kind, self.client, self.proto, self.port, payload)


def window(amount: int) -> bytes:
    """The payload of a WINDOW."""
    return _AMOUNT.pack(amount)


def decode(message: bytes | str) -> Frame:
    """The frame in a message; raises BadRequest."""
    if isinstance(message, str) or len(message) < _HEADER.size:
        raise BadRequest(f"frame: expected {_HEADER.size} bytes or more, not text")
    kind, proto, client, port = _HEADER.unpack_from(message)
    if proto not in (TCP, UDP) or not Type.CONNECT <= kind <= Type.EOF:
        raise BadRequest(f"frame: there is no type {kind} of protocol {proto}")
    if len(message) > _HEADER.size + MAX_PAYLOAD_BYTES:
        raise BadRequest(f"frame: its payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    return Frame(Type(kind), client, proto, port, message[_HEADER.size :])
