"""A line of progress: for a person at a terminal only, written over itself, and gone in the end."""

import io

from kohakuriver.client.command import Notes
from kohakuriver.client.output import Screen
from kohakuriver.client.progress import ProgressLine, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(err: io.StringIO, as_json: bool = False, columns: int = 60) -> str:
    environment = {"COLUMNS": str(columns), "LINES": "24"}
    with ProgressLine(Notes(err, as_json), Screen(io.StringIO(), columns, environment=environment)) as line:
        line.show("loads lab-1700000001: 50M of 100M", 50, 100)
        line.show("loads lab-1700000001: \x1b[2J" + "x" * 200)
    return err.getvalue()


def test_each_state_is_written_over_the_last_and_none_is_left() -> None:
    before, first, second, after = shown(Terminal()).split("\r\x1b[K")
    assert (before, after) == ("", "")
    assert first.startswith("━" * 12 + "─" * 12 + "  50%  loads lab")
    assert len(first) <= 59 and len(second) <= 59 and "\x1b" not in second


def test_programs_get_nothing_of_it() -> None:
    assert shown(io.StringIO()) == "" and shown(Terminal(), as_json=True) == ""


def test_a_bar_needs_a_total_and_never_leaves_its_frame() -> None:
    assert bar(5, 0) == "" and bar(0, 10).startswith("─" * 24) and bar(30, 10).startswith("━" * 24)
    assert bar(1, 2, "~") == "#" * 12 + "-" * 12 + "  50%  "
