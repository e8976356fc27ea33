"""How answers reach a person: text that cannot command the terminal, tables that fit it, colours, JSON."""

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TextIO, TypeVar

from kohakuriver.model.units import show_seconds, unix_seconds

T = TypeVar("T")
GAP = "  "


class Style(StrEnum):
    """What a terminal is told to change the colour, and back."""

    PLAIN = ""
    TITLE = "\x1b[1m"
    FAINT = "\x1b[2m"
    GOOD = "\x1b[32m"
    BUSY = "\x1b[36m"
    WARN = "\x1b[33m"
    BAD = "\x1b[31m"


RESET = "\x1b[0m"


class Screen(NamedTuple):
    """Where output goes; `columns` is None where nothing must be cut because no terminal shows it."""

    out: TextIO
    columns: int | None = None
    colours: bool = False
    ellipsis: str = "…"
    environment: Mapping[str, str] = {}

    def measured(self) -> "Screen":
        """The same screen with the width that its terminal has now."""
        return self._replace(columns=self.size()[0]) if self.columns else self

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal behind it; COLUMNS and LINES have the last word."""
        return terminal_size(self.out, self.environment)

    def paint(self, text: str, style: Style) -> str:
        return f"{style}{text}{RESET}" if self.colours and style else text

    def line(self, text: str = "") -> None:
        self.out.write(text + "\n")

    def lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.line(line)

    def json(self, value: Any) -> None:
        """One document: indented for a person, one line for a program."""
        self.line(json_text(value, indent=2 if self.columns else None))

    def json_line(self, value: Any) -> None:
        """One document of many: a line each."""
        self.line(json_text(value))
        self.out.flush()


def screen_of(out: TextIO, environment: Mapping[str, str]) -> Screen:
    """The screen behind a stream: a terminal's width and colours (never with NO_COLOR), or neither."""
    ellipsis = "…" if (out.encoding or "").lower().replace("-", "").startswith("utf") else "~"
    if not out.isatty():
        return Screen(out, ellipsis=ellipsis)
    dumb = environment.get("TERM", "dumb") == "dumb"
    colours = not dumb and not environment.get("NO_COLOR")
    return Screen(out, terminal_size(out, environment)[0], colours, ellipsis, environment)


def terminal_size(out: TextIO, environment: Mapping[str, str]) -> tuple[int, int]:
    """Columns and lines of the terminal behind a stream; COLUMNS and LINES have the last word."""
    try:
        real = tuple(os.get_terminal_size(out.fileno()))
    except (OSError, ValueError):  # no terminal, or no file at all
        real = (0, 0)
    given = [environment.get(name, "") for name in ("COLUMNS", "LINES")]
    told = [int(text) if text.isdecimal() else 0 for text in given]
    return told[0] or real[0] or 80, told[1] or real[1] or 24


def safe(text: str) -> str:
    """Text in which whatever could command a terminal, or hide what is written, is spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON whose strings hold no character that commands a terminal; it reads back as the same value."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1].replace("\x7f", "\\u007f") for c in text)


def command_text(command: str, arguments: Sequence[str]) -> str:
    """A command line that a shell would take apart into exactly these words."""
    return shlex.join([command, *arguments])


def width(text: str) -> int:
    """Columns that a terminal gives to printable text: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me") for c in text)


def cut(text: str, room: int, ellipsis: str = "…") -> str:
    """Text that takes at most `room` columns, with an ellipsis where something is missing."""
    if width(text) <= room:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += width(character)
        if taken >= room:
            return text[:index] + ellipsis if room else ""
    return text


def fitted(screen: Screen, text: str) -> str:
    """One line of text, safe and no wider than the screen."""
    return cut(safe(text), screen.columns, screen.ellipsis) if screen.columns else safe(text)


def ago(at: str | None, now: float) -> str:
    """How long since an RFC 3339 time, such as `3m04s`; `-` when there is none."""
    return show_seconds(max(0.0, now - unix_seconds(at))) if at else "-"


def lasted(start: str | None, end: str | None, now: float) -> str:
    """How long from one RFC 3339 time to another, or until now."""
    if not start:
        return "-"
    return show_seconds(max(0.0, (unix_seconds(end) if end else now) - unix_seconds(start)))


class Column(NamedTuple, Generic[T]):
    """One column of a table.

    `least` is the width down to which it may be cut (None: never). Where even that is too wide, columns go
    away: the one with the highest `leaves` first, those with 0 never.
    """

    title: str
    of: Callable[[T], str]
    right: bool = False
    least: int | None = None
    leaves: int = 0
    style: Callable[[T], Style] = lambda row: Style.PLAIN


class Table(Generic[T]):
    """A table whose columns are measured on the first rows; later rows keep to them, so that pages line up."""

    def __init__(self, columns: Sequence[Column[T]], screen: Screen) -> None:
        self._columns, self._screen = list(columns), screen
        self._widths: list[int] = []

    def lines(self, rows: Sequence[T]) -> Iterator[str]:
        """The lines of these rows, the first time below a heading."""
        cells = [[safe(column.of(row)) for column in self._columns] for row in rows]
        if not self._widths:
            titles = [column.title for column in self._columns]
            self._widths = self._measure([titles, *cells])
            yield self._line(titles, [Style.TITLE] * len(titles))
        for row, texts in zip(rows, cells, strict=True):
            yield self._line(texts, [column.style(row) for column in self._columns])

    def _measure(self, cells: list[list[str]]) -> list[int]:
        widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
        return fit(self._columns, widths, self._screen.columns) if self._screen.columns else widths

    def _line(self, texts: list[str], styles: Sequence[Style]) -> str:
        parts = []
        for column, text, style, room in zip(self._columns, texts, styles, self._widths, strict=True):
            if room:
                parts.append(self._screen.paint(self._cell(column, text, room), style))
        return GAP.join(parts).rstrip()

    def _cell(self, column: Column[T], text: str, room: int) -> str:
        if self._screen.columns:
            text = cut(text, room, self._screen.ellipsis)
        if column is self._columns[-1] and not column.right:
            return text
        space = " " * (room - width(text))
        return space + text if column.right else text + space


def fit(columns: Sequence[Column[Any]], widths: Sequence[int], room: int) -> list[int]:
    """The widths with which a table fits into `room` columns; 0 for a column that must go."""
    kept = list(widths)
    while True:
        fitted = _squeeze(columns, kept, room)
        if _total(fitted) <= room:
            return fitted
        leaves, index = max(((c.leaves, i) for i, c in enumerate(columns) if kept[i]), default=(0, 0))
        if not leaves:
            return _clip(fitted, room)
        kept[index] = 0


def _total(widths: Sequence[int]) -> int:
    shown = [w for w in widths if w]
    return sum(shown) + len(GAP) * max(0, len(shown) - 1)


def _squeeze(columns: Sequence[Column[Any]], widths: Sequence[int], room: int) -> list[int]:
    """Take the excess from the widest columns that may be cut."""
    made = list(widths)
    while _total(made) > room:
        spare = [(w, i) for i, (c, w) in enumerate(zip(columns, made, strict=True)) if c.least and w > c.least]
        if not spare:
            break
        made[max(spare)[1]] -= 1
    return made


def _clip(widths: Sequence[int], room: int) -> list[int]:
    """The last resort on a terminal that is narrower than what must be shown: what stands on the right is lost."""
    made: list[int] = []
    for wanted in widths:
        left = room - _total(made) - (len(GAP) if any(made) else 0)
        made.append(max(0, min(wanted, left)))
    return made


def field_lines(screen: Screen, fields: Iterable[tuple[str, str | list[str]]]) -> Iterator[str]:
    """One line for each name and value; empty values are left out, lists take a line for each item."""
    shown = [(name, [value] if isinstance(value, str) else value) for name, value in fields]
    wide = max((len(name) for name, values in shown if any(values)), default=0)
    for name, values in shown:
        for index, value in enumerate(v for v in values if v):
            label = ("" if index else name).ljust(wide)
            yield f"{screen.paint(label, Style.TITLE)}{GAP}{safe(value)}"
