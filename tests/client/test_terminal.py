"""What a person sees on a real terminal: tables that fit, colours, pictures that are repainted in place."""

import re
import signal

import pytest

from kohakuriver.client.output import width
from kohakuriver.client.watching import ENTER, HOME, LEAVE
from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.lifecycle import Status
from tests.client.made_up_host import FIRST, RUNNING, MadeUpHost, node, task
from tests.client.terminal import on_terminal

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NAMES = ["train", "日本語の名前がとても長い", "x" * 120, "\x9b2Jé́"]


def lines_of(painted: bytes) -> list[str]:
    return COLOUR.sub("", painted.decode()).splitlines()


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_tables_fit_the_terminal(host: MadeUpHost, columns: int) -> None:
    host.answer(api.TASK_LIST, [task(number, name=name, owner="o" * 30) for number, name in enumerate(NAMES)])
    with on_terminal("task", "list", columns=columns) as terminal:
        code, painted = terminal.ended()
    lines = lines_of(painted)
    assert code == 0 and len(lines) == 1 + len(NAMES)
    assert all(width(line) <= columns for line in lines)
    assert all(line.startswith(str(FIRST + number)) for number, line in enumerate(lines[1:]))


def test_columns_beats_the_size_of_the_terminal(host: MadeUpHost) -> None:
    with on_terminal("task", "list", columns=80, variables={"COLUMNS": "30"}) as terminal:
        assert max(map(width, lines_of(terminal.ended()[1]))) <= 30


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(host: MadeUpHost, variables: dict[str, str], coloured: bool) -> None:
    with on_terminal("task", "list", variables=variables) as terminal:
        assert (b"\x1b[" in terminal.ended()[1]) == coloured


def test_json_on_a_terminal_is_indented_and_commands_nothing(host: MadeUpHost) -> None:
    host.answer(api.TASK_LIST, [task(name="\x9b2J", command="\x1b[2J\x7f")])
    with on_terminal("task", "list", "--json") as terminal:
        painted = terminal.ended()[1].decode()
    assert painted.startswith('[\r\n  {\r\n    "') and painted.replace("\r\n", "").isprintable()


def test_submit_hints_how_to_go_on_but_not_on_standard_output(host: MadeUpHost) -> None:
    with on_terminal("task", "submit", "--", "true") as terminal:
        lines = lines_of(terminal.ended()[1])
    assert lines == [
        str(FIRST),
        f"kohakuriver: queued; see its output with: kohakuriver task logs -f {FIRST}",
    ]


def test_a_full_page_tells_how_to_see_older_ones(host: MadeUpHost) -> None:
    host.answer(api.TASK_LIST, lambda request: [task(number) for number in range(request.limit)])
    with on_terminal("task", "list", "-l", "2") as terminal:
        assert lines_of(terminal.ended()[1])[-1] == f"kohakuriver: older ones: --before {FIRST + 1}, or --all"


def test_who_waits_is_told_what_happens(host: MadeUpHost) -> None:
    pending = task(status=Status.PENDING, attempt=0, reason="alpha: full", exit_code=None, completed_at=None)
    host.in_turn(api.TASK_SHOW, pending, pending, task(**RUNNING), task())
    with on_terminal("task", "wait", str(FIRST)) as terminal:
        assert lines_of(terminal.ended()[1]) == [
            f"kohakuriver: {FIRST} pending: alpha: full",
            f"kohakuriver: {FIRST} running on alpha",
            f"kohakuriver: {FIRST} completed",
        ]


def test_who_stops_waiting_is_told_that_the_task_goes_on(host: MadeUpHost) -> None:
    host.answer(api.TASK_SHOW, task(**RUNNING))
    with on_terminal("task", "submit", "--wait", "--", "sleep", "1d") as terminal:
        terminal.read_until(lambda seen: b"running" in seen)
        terminal.process.send_signal(signal.SIGINT)
        code, painted = terminal.ended()
    assert code == 130
    assert lines_of(painted)[-1].endswith(f"it goes on; to end it: kohakuriver task kill {FIRST}")


def test_an_empty_output_says_where_there_is_some(host: MadeUpHost) -> None:
    host.outputs["stdout", 1] = b""
    host.answer(api.TASK_SHOW, task(stderr_bytes=10))
    with on_terminal("task", "logs", str(FIRST)) as terminal:
        (line,) = lines_of(terminal.ended()[1])
    assert line == "kohakuriver: nothing there; the task is completed (add --stderr for what it wrote there)"


def test_watching_repaints_in_place_and_restores_the_screen(host: MadeUpHost) -> None:
    host.in_turn(api.TASK_SHOW, task(**RUNNING), task(**RUNNING), task(status=Status.FAILED, exit_code=3))
    with on_terminal("task", "watch", "--interval", "0.1", str(FIRST), columns=60, lines=10) as terminal:
        code, painted = terminal.ended()
    text = painted.decode()
    before, _, rest = text.partition(ENTER)
    inside, _, after = rest.partition(LEAVE)
    assert (code, before) == (3, "")
    pictures = inside.split(HOME)[1:]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.endswith("\x1b[J") and picture.count("\x1b[K") == picture.count("\n") + 1 <= 10
        assert "\x1b[2J" not in picture and not picture.endswith("\n\x1b[J")
    assert [("running" in p, "failed (3)" in p) for p in pictures] == [(True, False), (True, False), (False, True)]
    assert "failed (3)" in after  # the last picture stays


def test_a_picture_is_cut_to_the_lines_of_the_terminal(host: MadeUpHost) -> None:
    host.answer(api.TASK_LIST, [task(number) for number in range(50)])
    with on_terminal("task", "watch", lines=8) as terminal:
        painted = terminal.read_until(lambda seen: b"\x1b[J" in seen).decode()
    shown = painted.partition(HOME)[2].partition("\x1b[J")[0]
    assert shown.count("\n") == 7 and "46 more lines" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whatever_ends_the_watching_the_screen_is_restored(host: MadeUpHost, number: int, code: int) -> None:
    with on_terminal("node", "watch") as terminal:
        terminal.read_until(lambda seen: b"\x1b[J" in seen)
        terminal.process.send_signal(number)
        ended, painted = terminal.ended()
    assert ended == code and b"Traceback" not in painted
    assert painted.count(ENTER.encode()) == painted.count(LEAVE.encode()) == 1
    assert painted.endswith(LEAVE.encode())


def test_a_resized_terminal_is_repainted_at_once(host: MadeUpHost) -> None:
    host.answer(api.NODE_LIST, [node("n" * 60)])
    with on_terminal("node", "watch", "--interval", "60", columns=100) as terminal:
        terminal.read_until(lambda seen: b"\x1b[J" in seen)
        terminal.resize(30, 10)
        painted = terminal.read_until(lambda seen: seen.count(b"\x1b[J") == 2).decode()
    last = COLOUR.sub("", painted.split(HOME)[-1]).replace("\x1b[K", "").replace("\x1b[J", "")
    assert all(width(line) <= 30 for line in last.splitlines())


def test_a_host_that_goes_away_is_told_in_the_picture_until_it_is_back(host: MadeUpHost) -> None:
    away = errors.NodeUnreachable("it is \x9baway")
    host.in_turn(api.NODE_LIST, [node()], away, [node("back")])
    with on_terminal("node", "watch", "--interval", "0.1") as terminal:
        painted = terminal.read_until(lambda seen: b"back" in seen).decode()
    troubled = painted.split(HOME)[2]
    assert r"it is \x9baway" in troubled and "alpha" in troubled
    assert "away" not in painted.split(HOME)[3]


def test_a_watch_that_finds_no_host_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")
    with on_terminal("task", "watch") as terminal:
        code, painted = terminal.ended()
    assert code == 6 and ENTER.encode() not in painted
