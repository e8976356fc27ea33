"""Text cannot command the terminal, and tables fit it."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.client.output import (
    Column,
    Screen,
    Style,
    Table,
    ago,
    cut,
    field_lines,
    json_text,
    safe,
    screen_of,
    width,
)

EVIL = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\n\x7f"
Row = tuple[str, str, str]
COLUMNS: list[Column[Row]] = [
    Column("ID", lambda row: row[0]),
    Column("NODE", lambda row: row[1], least=4, leaves=1),
    Column("COMMAND", lambda row: row[2], least=6),
]


def shown(rows: list[Row], columns: int | None) -> list[str]:
    return list(Table(COLUMNS, Screen(io.StringIO(), columns)).lines(rows))


@given(st.text())
def test_no_text_holds_a_character_that_commands_a_terminal(text: str) -> None:
    assert safe(text).isprintable()


def test_what_is_made_harmless_still_says_what_it_was() -> None:
    assert safe(EVIL) == r"\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\n\x7f"
    assert safe("plain 普通 é") == "plain 普通 é"


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_reads_back_as_the_same_and_commands_nothing(value: object) -> None:
    for indent in (None, 2):
        text = json_text(value, indent)
        assert json.loads(text) == value
        assert text.replace("\n", "").isprintable()


@given(st.text(alphabet="ab界é́  ", max_size=30), st.integers(0, 20))
def test_what_is_cut_never_takes_more_room_than_there_is(text: str, room: int) -> None:
    made = cut(text, room)
    assert width(made) <= room
    assert made == text or made.endswith("…") or room == 0
    assert made == text or width(text) > room


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert (width("abc"), width("世界"), width("é"), width("👍")) == (3, 4, 1, 2)
    assert cut("世界世界", 6) == "世界…" and cut("世界世界", 5) == "世界…"


@given(
    st.lists(st.tuples(st.text("0123", max_size=9), st.text("abx世", max_size=12), st.text("cmd 界", max_size=60))),
    st.integers(1, 100),
)
def test_a_table_is_never_wider_than_its_terminal(rows: list[Row], columns: int) -> None:
    assert all(width(line) <= columns for line in shown(rows, columns))


def test_nothing_is_cut_where_no_terminal_is() -> None:
    rows = [("1", "alpha", "x" * 500), ("22", "b", "y")]
    assert shown(rows, None) == ["ID  NODE   COMMAND", f"1   alpha  {'x' * 500}", "22  b      y"]


def test_the_widest_column_gives_way_first_then_the_least_important_leaves() -> None:
    rows = [("12345", "alphabet", "python train.py --epochs 3")]
    assert shown(rows, 30)[1] == "12345  alphabet  python train…"
    assert shown(rows, 21)[1] == "12345  alpha…  pytho…"
    assert shown(rows, 16)[1] == "12345  python t…"
    assert shown(rows, 4)[1] == "123…"


def test_later_pages_line_up_with_the_first() -> None:
    table = Table(COLUMNS, Screen(io.StringIO(), 40))
    first, later = list(table.lines([("1", "alpha", "a")])), list(table.lines([("2", "b", "c" * 60)]))
    assert first == ["ID  NODE   COMMAND", "1   alpha  a"]
    assert later == ["2   b      cccccc…"]


def test_cells_with_wide_characters_line_up() -> None:
    lines = shown([("1", "世界", "a"), ("2", "abcd", "b")], 40)
    assert [width(line) for line in lines[1:]] == [11, 11]


def test_colours_stand_around_text_that_has_its_width_already() -> None:
    screen = Screen(io.StringIO(), 40, colours=True)
    columns: list[Column[str]] = [
        Column("A", lambda row: row, style=lambda row: Style.BAD),
        Column("B", lambda row: "b"),
    ]
    assert list(Table(columns, screen).lines(["x\x1b"]))[1] == "\x1b[31mx\\x1b\x1b[0m  b"


def test_a_stream_that_is_no_terminal_has_neither_width_nor_colours() -> None:
    screen = screen_of(io.StringIO(), {"COLUMNS": "40", "TERM": "xterm"})
    assert (screen.columns, screen.colours) == (None, False)


def test_an_encoding_without_an_ellipsis_gets_another_mark() -> None:
    assert screen_of(io.TextIOWrapper(io.BytesIO(), "ascii"), {}).ellipsis == "~"
    assert screen_of(io.TextIOWrapper(io.BytesIO(), "utf-8"), {}).ellipsis == "…"


@pytest.mark.parametrize(
    ("at", "told"),
    [(None, "-"), ("1970-01-01T00:00:58.000Z", "42s"), ("1970-01-01T00:05:00.000Z", "0.0s")],
)
def test_a_time_is_told_as_how_long_ago(at: str | None, told: str) -> None:
    assert ago(at, 100.0) == told


def test_empty_fields_are_left_out_and_lists_take_a_line_each() -> None:
    fields: list[tuple[str, str | list[str]]] = [("name", "a\nb"), ("nothing", ""), ("reasons", ["one", "", "two"])]
    assert list(field_lines(Screen(io.StringIO()), fields)) == ["name     a\\nb", "reasons  one", "         two"]
