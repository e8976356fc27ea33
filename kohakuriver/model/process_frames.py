"""How a process is spoken with over a socket: what it reads and writes as bytes, all else as text.

Bytes begin with the number of the stream; nothing behind the number says that the stream has ended. Text is JSON:
`{"type": "resize", "rows", "columns"}` and `{"type": "signal", "name"}` to the process, `{"type": "exit", "code"}` from it.
"""

import json
from dataclasses import dataclass

from kohakuriver.model.errors import BadRequest

STDIN, STDOUT, STDERR = b"\0", b"\1", b"\2"
MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has another size now."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal for the process, by its name without SIG."""

    name: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is over; 128+n when signal n ended it, as shells say it."""

    code: int


Told = Resize | Signal | Exited
KINDS: dict[str, type[Resize] | type[Signal] | type[Exited]] = {"resize": Resize, "signal": Signal, "exit": Exited}
NAMES = {kind: name for name, kind in KINDS.items()}


def write_told(told: Told) -> str:
    """As text."""
    members = {name: getattr(told, name) for name in type(told).__slots__}
    return json.dumps({"type": NAMES[type(told)], **members})


def read_told(text: str) -> Told:
    """What a text says; raises BadRequest for what is none of ours."""
    try:
        members = json.loads(text)
        kind = KINDS[members.pop("type")]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest("not a frame of a process") from None
    return _checked(kind, members)


def _checked(kind: type[Resize] | type[Signal] | type[Exited], members: dict[str, object]) -> Told:
    rows, columns, name, code = (members.get(key) for key in ("rows", "columns", "name", "code"))
    if kind is Resize and type(rows) is int and type(columns) is int and 0 <= rows | columns < MOST_ROWS:
        return Resize(rows, columns)
    if kind is Signal and isinstance(name, str) and name.isalnum() and len(name) <= 10:
        return Signal(name)
    if kind is Exited and type(code) is int and 0 <= code <= 255:
        return Exited(code)
    raise BadRequest("a frame of a process that cannot be")
