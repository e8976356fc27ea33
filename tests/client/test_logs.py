"""Reading and following output: every byte once, whatever breaks in between."""

import base64
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from kohakuriver.client import run
from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.runner_api import ReadOutput
from tests.client.conftest import River, spawn
from tests.client.made_up_host import FIRST, RUNNING, MadeUpHost, task

PENDING: dict[str, Any] = {"status": Status.PENDING, "completed_at": None, "exit_code": None, "attempt": 0}
BYTES = bytes(range(256)) * 40 + b"\x1b[31m\xff\r\n no newline at the end"
ID = str(FIRST)


Logs = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def logs(capsysbinary: pytest.CaptureFixture[bytes]) -> Logs:
    """Runs `task logs` and gives its exit code and its bytes."""

    def run_here(*words: str) -> tuple[int, bytes, bytes]:
        code = run(["task", "logs", ID, *words])
        return code, *capsysbinary.readouterr()

    return run_here


def reads(host: MadeUpHost) -> list[ReadOutput]:
    return [request for name, request in host.asked if name in ("task.stdout", "task.stderr")]


def test_bytes_come_out_as_the_program_wrote_them(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1] = BYTES
    assert logs() == (0, BYTES, b"")


def test_stderr_is_asked_for(host: MadeUpHost, logs: Logs) -> None:
    host.outputs |= {("stdout", 1): b"out", ("stderr", 1): b"err"}
    assert logs("--stderr") == (0, b"err", b"")
    assert logs("-e") == (0, b"err", b"")


def test_both_go_where_the_program_wrote_them(host: MadeUpHost, logs: Logs) -> None:
    host.outputs |= {("stdout", 1): b"out" * 9999, ("stderr", 1): b"err" * 9999}
    assert logs("--both") == (0, b"out" * 9999, b"err" * 9999)
    host.cuts = [5, 5, 5, 5]
    assert logs("--both", "-f") == (0, b"out" * 9999, b"err" * 9999)


def test_part_of_the_output_is_asked_of_the_host(host: MadeUpHost, logs: Logs) -> None:
    host.outputs |= {("stdout", 1): b"one\ntwo\nthree\n", ("stdout", 2): b"again"}
    assert logs("--tail", "2")[1] == b"two\nthree\n"
    assert logs("--offset", "8")[1] == b"three\n"
    assert logs("--attempt", "2")[1] == b"again"
    assert [(r.lines, r.offset, r.attempt) for r in reads(host)] == [(2, 0, None), (None, 8, None), (None, 0, 2)]


def test_a_task_without_that_attempt_is_not_found(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1] = b""
    assert logs("--attempt", "3") == (3, b"", b"kohakuriver: attempt 3 has no stdout\n")


@pytest.mark.parametrize("seed", range(4))
def test_following_misses_and_doubles_nothing_however_often_it_breaks(host: MadeUpHost, logs: Logs, seed: int) -> None:
    dice = random.Random(seed)
    host.outputs["stdout", 1] = BYTES
    host.cuts = [dice.choice([0, 1, 2, 500, 3000]) for _ in range(6)]
    running = [task(**RUNNING)] * dice.randrange(1, 9)
    host.in_turn(api.TASK_SHOW, *running, task())
    code, out, err = logs("-f")
    assert (code, out) == (0, BYTES)
    assert set(err.splitlines()) <= {b"kohakuriver: the host does not answer just now; trying again for 10 minutes"}


def test_following_goes_on_at_the_byte_where_it_stopped(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1] = BYTES
    host.cuts = [100, 50]
    assert logs("-f", "--offset", "7")[1] == BYTES[7:]
    assert [request.offset for request in reads(host)] == [7, 107, 157]


def test_a_tail_goes_on_where_it_stopped(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1] = b"one\ntwo\nthree\n"
    host.cuts = [3]
    assert logs("-f", "--tail", "2")[1] == b"two\nthree\n"
    assert [(request.lines, request.offset) for request in reads(host)] == [(2, 0), (None, 7)]


def test_a_tail_that_breaks_where_nobody_knows_is_an_error_and_no_guess(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1], host.cuts, host.offset_header = b"one\ntwo\nthree\n", [3], False
    code, out, err = logs("-f", "--tail", "2")
    assert (code, out) == (1, b"two")
    assert err == b"kohakuriver: the connection broke, and the host did not say where the tail began: read it again\n"


def test_what_comes_after_a_clean_end_is_read_too(host: MadeUpHost, logs: Logs) -> None:
    """A host that is told to stop ends its answers cleanly, although the task goes on."""
    parts = iter([b"first ", b"", b"second"])

    def stdout(request: ReadOutput) -> Any:
        part = next(parts, b"")

        async def chunks() -> Any:
            yield part

        return chunks()

    host.answer(api.TASK_STDOUT, stdout)
    host.in_turn(api.TASK_SHOW, task(**RUNNING), task(**RUNNING), task())
    assert logs("-f")[1] == b"first second"
    assert [(r.offset, r.follow) for r in reads(host)] == [(0, True), (6, True), (6, False)]


def test_a_task_that_waits_is_followed_from_its_start(host: MadeUpHost, logs: Logs) -> None:
    host.outputs["stdout", 1] = b"hello"
    host.in_turn(api.TASK_SHOW, task(**PENDING), task(**PENDING), task(**RUNNING), task())
    assert logs("-f") == (0, b"hello", b"")
    assert [request.attempt for request in reads(host)] == [1, 1]


def test_a_task_that_never_ran_has_no_output(host: MadeUpHost, logs: Logs) -> None:
    host.in_turn(api.TASK_SHOW, task(**PENDING), task(status=Status.KILLED, attempt=0, exit_code=None))
    assert logs("-f") == (0, b"", b"")


def test_the_next_attempt_follows_the_one_that_failed(host: MadeUpHost, logs: Logs) -> None:
    host.outputs |= {("stdout", 1): b"first", ("stdout", 3): b"third"}
    host.in_turn(api.TASK_SHOW, task(**RUNNING), task(**(RUNNING | {"attempt": 3})), task(attempt=3))
    code, out, err = logs("-f")
    assert (code, out) == (0, b"firstthird")
    assert err.decode().splitlines() == [
        f"kohakuriver: attempt 1 has ended; attempt 2 of task {FIRST} follows",
        f"kohakuriver: attempt 2 has ended; attempt 3 of task {FIRST} follows",
    ]


def test_an_attempt_that_was_named_is_followed_alone(host: MadeUpHost, logs: Logs) -> None:
    host.outputs |= {("stdout", 1): b"first", ("stdout", 2): b"second"}
    host.in_turn(api.TASK_SHOW, task(**RUNNING), task(attempt=2))
    assert logs("-f", "--attempt", "1") == (0, b"first", b"")


def test_a_node_that_is_away_for_good_is_an_error(host: MadeUpHost, river: River) -> None:
    def away(request: object) -> object:
        raise errors.NodeUnreachable("alpha is away")

    host.answer(api.TASK_STDOUT, away)
    assert river("task", "logs", ID, "-f").code == 6
    assert river("task", "logs", ID).err == "kohakuriver: alpha is away\n"


def test_a_host_that_is_not_there_is_told_at_once(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")
    assert river("task", "logs", ID, "-f").code == 6


def test_json_holds_text_where_it_is_text_and_base64_elsewhere(host: MadeUpHost, river: River) -> None:
    host.outputs |= {("stdout", 1): "é\n\x1b[2J".encode(), ("stderr", 1): b"\xff\x00"}
    assert json.loads(river("task", "logs", ID, "--json").out) == {
        "stream": "stdout", "attempt": None, "offset": 0, "text": "é\n\x1b[2J",
    }  # fmt: skip
    assert json.loads(river("task", "logs", ID, "--json", "--stderr").out) == {
        "stream": "stderr", "attempt": None, "offset": 0, "base64": base64.b64encode(b"\xff\x00").decode(),
    }  # fmt: skip


def test_json_of_what_is_followed_is_a_document_a_piece(host: MadeUpHost, river: River) -> None:
    host.outputs["stdout", 1], host.cuts = b"hello world", [5]
    pieces = [json.loads(line) for line in river("task", "logs", ID, "-f", "--json").out.splitlines()]
    assert [(piece["offset"], piece["text"], piece["attempt"]) for piece in pieces] == [
        (0, "hello", 1),
        (5, " world", 1),
    ]


def test_what_is_followed_is_seen_while_it_comes(host: MadeUpHost) -> None:
    async def chunks() -> Any:
        import asyncio

        yield b"at once"
        await asyncio.sleep(60)

    host.answer(api.TASK_SHOW, task(**RUNNING))
    host.answer(api.TASK_STDOUT, lambda request: chunks())
    process = spawn("task", "logs", "-f", ID)
    assert process.stdout and os.read(process.stdout.fileno(), 100) == b"at once"
    process.kill()
    process.communicate()


def test_a_reader_that_has_seen_enough_ends_the_following(host: MadeUpHost) -> None:
    host.outputs["stdout", 1] = b"line\n" * 1_000_000
    process = spawn("task", "logs", "-f", ID)
    assert process.stdout and process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr and process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141
