"""One line of progress for a person at a terminal, written over itself; programs get nothing of it."""

from typing import Self

from kohakuriver.client.command import Notes
from kohakuriver.client.output import Screen, cut, safe

BAR_COLUMNS = 24


class ProgressLine:
    """Shows how far something is while the block runs, and leaves no trace of it."""

    def __init__(self, notes: Notes, screen: Screen) -> None:
        self._notes, self._screen = notes, screen
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take it away, for something else to be written."""
        if self._shown:
            self._write("\r\x1b[K")
        self._shown = False

    def show(self, text: str, done: int = 0, total: int = 0) -> None:
        """How far it is now; with a `total` as a bar, too."""
        if not self._notes.for_a_person:
            return
        line = f"{bar(done, total, self._screen.ellipsis)}{safe(text)}"
        room = (self._screen.measured().columns or 80) - 1
        self._write(f"\r\x1b[K{cut(line, room, self._screen.ellipsis)}")
        self._shown = True

    def _write(self, text: str) -> None:
        self._notes.err.write(text)
        self._notes.err.flush()


def bar(done: int, total: int, ellipsis: str = "…") -> str:
    """A bar with a percentage before the text; empty when nobody knows the total."""
    if total <= 0:
        return ""
    share = min(1.0, done / total)
    full = round(share * BAR_COLUMNS)
    block, rest = ("━", "─") if ellipsis == "…" else ("#", "-")
    return f"{block * full}{rest * (BAR_COLUMNS - full)} {share:4.0%}  "
