"""What is said over a terminal's socket: frames of bytes between programs, JSON text with browsers. Sans-IO.

Frames of bytes are a kind (u8) and a payload. Program to runner: START (JSON of `StartTerminal`; the first frame), INPUT,
RESIZE (`>HH` rows, columns), RECEIVED (`>Q`: bytes of output it has by now), END_INPUT, SIGNAL (u8), LEAVE (end the session). Runner to
program: OPENED (JSON of `TerminalOpened`; the first frame), OUTPUT, ERRORS (standard error, where there is no tty), TAKEN (`>Q`: bytes of
input it has by now), EXIT (`>i`).

So either side knows what the other has, and after a broken connection both go on where they were.
"""

import codecs
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from kohakuriver.model.errors import BadRequest

BYTES, TEXT = "kohakuriver.terminal.bytes", "kohakuriver.terminal.text"  # protocols
MAX_SIZE = 10_000
SHELLS = ("bash", "ash", "sh")


class Kind(IntEnum):
    """What a frame is."""

    START = 1
    INPUT = 2
    RESIZE = 3
    RECEIVED = 4
    END_INPUT = 5
    SIGNAL = 6
    LEAVE = 7
    OPENED = 16
    OUTPUT = 17
    ERRORS = 18
    TAKEN = 19
    EXIT = 20


@dataclass(frozen=True, slots=True)
class Input:
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Received:
    total_bytes: int


@dataclass(frozen=True, slots=True)
class EndInput:
    pass


@dataclass(frozen=True, slots=True)
class Signal:
    number: int


@dataclass(frozen=True, slots=True)
class Leave:
    pass


Said = Input | Resize | Received | EndInput | Signal | Leave
_SIZE, _TOTAL, _CODE = struct.Struct(">HH"), struct.Struct(">Q"), struct.Struct(">i")


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """A frame of bytes."""
    return bytes((kind,)) + payload


def resize_frame(rows: int, columns: int) -> bytes:
    return frame(Kind.RESIZE, _SIZE.pack(min(rows, MAX_SIZE), min(columns, MAX_SIZE)))


def total_frame(kind: Kind, total_bytes: int) -> bytes:
    """RECEIVED or TAKEN."""
    return frame(kind, _TOTAL.pack(total_bytes))


def exit_frame(code: int) -> bytes:
    return frame(Kind.EXIT, _CODE.pack(code))


def read_total(payload: bytes) -> int:
    """What TAKEN or RECEIVED counts; raises BadRequest."""
    total: int = _unpack(_TOTAL, payload)[0]
    return total


def read_exit(payload: bytes) -> int:
    """The code in EXIT; raises BadRequest."""
    code: int = _unpack(_CODE, payload)[0]
    return code


def split(message: bytes | str) -> tuple[Kind, bytes]:
    """Kind and payload of a frame of bytes; raises BadRequest for anything else."""
    if isinstance(message, str) or not message:
        raise BadRequest("frame: expected bytes, the first of which says what it is")
    try:
        return Kind(message[0]), message[1:]
    except ValueError:
        raise BadRequest(f"frame: there is no kind {message[0]}") from None


def read_bytes(message: bytes | str) -> Said:
    """What a program says after START; raises BadRequest."""
    kind, payload = split(message)
    said = _READ.get(kind)
    if said is None:
        raise BadRequest(f"frame: {kind.name} has no place here")
    return said(payload)


def read_text(message: bytes | str) -> Said:
    """What a browser says; raises BadRequest."""
    try:
        told = json.loads(message)
        kind = told["type"]
        if kind == "input":
            return Input(told["data"].encode("utf-8", "replace"))
        if kind == "resize":
            return _resize(int(told["rows"]), int(told["cols"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise BadRequest("frame: expected JSON with a type and what belongs to it") from None
    raise BadRequest("frame: the type must be input or resize")


class TextOut:
    """Bytes of output made into JSON frames: characters that are cut by the reading are whole again."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def output(self, data: bytes) -> str:
        """A frame; empty when no character is whole yet."""
        text = self._decoder.decode(data)
        return json.dumps({"type": "output", "data": text}, ensure_ascii=False) if text else ""


def exit_text(code: int) -> str:
    return json.dumps({"type": "exit", "code": code})


def error_text(message: str) -> str:
    return json.dumps({"type": "error", "data": message})


def session_text(session_id: str) -> str:
    """By which a browser can come back."""
    return json.dumps({"type": "session", "id": session_id})


def _resize(rows: int, columns: int) -> Resize:
    if not (1 <= rows <= MAX_SIZE and 1 <= columns <= MAX_SIZE):
        raise BadRequest(f"frame: rows and columns are from 1 to {MAX_SIZE}")
    return Resize(rows, columns)


def _unpack(form: struct.Struct, payload: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(payload)
    except struct.error:
        raise BadRequest(f"frame: expected {form.size} bytes, not {len(payload)}") from None


def _signal(payload: bytes) -> Signal:
    if len(payload) != 1 or not 1 <= payload[0] <= 64:
        raise BadRequest("frame: SIGNAL needs one number from 1 to 64")
    return Signal(payload[0])


_READ: dict[Kind, Callable[[bytes], Said]] = {
    Kind.INPUT: Input,
    Kind.RESIZE: lambda payload: _resize(*_unpack(_SIZE, payload)),
    Kind.RECEIVED: lambda payload: Received(read_total(payload)),
    Kind.END_INPUT: lambda payload: EndInput(),
    Kind.SIGNAL: _signal,
    Kind.LEAVE: lambda payload: Leave(),
}
