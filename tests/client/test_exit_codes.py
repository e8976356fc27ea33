"""What a script sees of a command: its exit code, its streams, its pipes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.lifecycle import Status
from tests.client.conftest import River, spawn
from tests.client.made_up_host import FIRST, MadeUpHost, task


def refuse(error: errors.RiverError) -> Callable[[object], object]:
    def reply(request: object) -> object:
        raise error

    return reply


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.BadRequest, 2),
        (errors.NotFound, 3),
        (errors.NotAllowed, 4),
        (errors.NotLoggedIn, 4),
        (errors.Conflict, 5),
        (errors.TooMany, 6),
        (errors.NodeUnreachable, 6),
        (errors.StoreUnavailable, 6),
        (errors.RiverError, 1),
    ],
)
def test_each_refusal_has_its_exit_code(
    host: MadeUpHost, river: River, kind: type[errors.RiverError], code: int
) -> None:
    host.answer(api.TASK_SHOW, refuse(kind("it is so\nand so", {"why": "x"})))
    plain, as_json = river("task", "status", "5"), river("task", "status", "5", "--json")
    assert plain == type(plain)(code, "", "kohakuriver: it is so and so\n")
    assert (as_json.code, as_json.out) == (code, "")
    assert json.loads(as_json.err) == {
        "error": {"code": kind.code, "message": "it is so\nand so", "details": {"why": "x"}}
    }


@pytest.mark.parametrize("kind", [errors.BadRequest, errors.Conflict, errors.NotAllowed])
def test_a_refusal_names_the_option_and_not_the_field(
    host: MadeUpHost, river: River, kind: type[errors.RiverError]
) -> None:
    host.answer(api.TASK_SUBMIT, refuse(kind("additional_mounts: not there")))
    told = river("task", "submit", "--", "true")
    assert (told.code, told.err) == (kind.exit_code, "kohakuriver: --mount: not there\n")


def test_no_host_is_six_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KOHAKURIVER_PORT", str(taken.getsockname()[1]))
        code, out, err = ended(spawn("task", "list"))
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert "is `kohakuriver host` running there?" in err


@pytest.mark.parametrize(
    ("variables", "words", "said"),
    [
        ({"KOHAKURIVER_PORT": "http"}, [], "KOHAKURIVER_PORT: expected a whole number, got text"),
        ({"KOHAKURIVER_PORT": "70000"}, [], "KOHAKURIVER_PORT: 70000 is not between 1 and 65535"),
        ({}, ["--port", "0"], "--port: 0 is not between 1 and 65535"),
        ({"KOHAKURIVER_HOST": "http://a:1"}, [], "KOHAKURIVER_HOST: 'http://a:1' is not just a name or an address"),
        ({}, ["--host", "a:8000"], "--host: 'a:8000' is not just a name or an address"),
    ],
)
def test_a_wrong_address_is_told_by_where_it_stands(
    river: River, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: list[str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = river("node", "list", *words)
    assert told.code == 2 and said in told.err


def test_an_option_beats_the_environment_before_and_after_the_command(
    host: MadeUpHost, river: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")
    assert river("node", "list").code == 6
    assert river("--port", str(host.port), "node", "list").code == 0
    assert river("node", "list", "--port", str(host.port)).code == 0
    monkeypatch.setenv("KOHAKURIVER_PORT", "")
    assert river("node", "list", "--host", "127.0.0.1", "--port", str(host.port)).code == 0


def test_a_reader_that_has_seen_enough_is_no_error(host: MadeUpHost) -> None:
    host.answer(api.TASK_LIST, [task(number, command="x" * 5000) for number in range(200)])
    process = spawn("task", "list")
    assert process.stdout and process.stdout.readline().startswith(b"TASK")
    process.stdout.close()
    assert process.stderr and process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141


def test_a_reader_that_is_gone_before_the_answer_is_no_error(host: MadeUpHost) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = spawn("task", "list", stdout=writing)
    os.close(writing)
    assert ended(process) == (141, "", "")


def test_a_full_disk_behind_the_output_is_told(host: MadeUpHost) -> None:
    with open("/dev/full", "wb") as full:
        code, _, err = ended(spawn("task", "list", stdout=full))
    assert (code, err) == (1, "kohakuriver: cannot write the answer: No space left on device\n")


def test_ctrl_c_ends_with_130_and_no_traceback(host: MadeUpHost) -> None:
    host.answer(api.TASK_SHOW, task(status=Status.RUNNING, completed_at=None, exit_code=None))
    process = spawn("task", "wait", str(FIRST))
    while not host.requests(api.TASK_SHOW):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "")


def test_text_that_the_output_cannot_spell_is_escaped_instead_of_failing(host: MadeUpHost) -> None:
    host.answer(api.TASK_LIST, [task(name="日本 €")])
    environment = dict(os.environ) | {"PYTHONIOENCODING": "ascii"}
    code, out, err = ended(spawn("task", "list", env=environment))
    assert (code, err) == (0, "") and r"\u65e5\u672c \u20ac" in out


def test_several_ids_are_done_as_far_as_possible_and_end_with_the_first_error(host: MadeUpHost, river: River) -> None:
    def kill(request: api.TaskId) -> object:
        if request.task_id == 2:
            raise errors.Conflict("task 2 has ended")
        return task(task_id=request.task_id, status=Status.KILLED, exit_code=None)

    host.answer(api.TASK_KILL, kill)
    told = river("task", "kill", "1", "2", "3", "3")
    assert (told.code, told.out) == (5, "1  killed\n3  killed\n")
    assert told.err == "kohakuriver: task 2 has ended\n"
    as_json = river("task", "kill", "1", "2", "3", "--json")
    assert [found["task_id"] for found in json.loads(as_json.out)] == ["1", "3"]
    assert json.loads(as_json.err)["error"]["code"] == "conflict"


def test_the_client_runs_as_the_program_itself(host: MadeUpHost) -> None:
    command = [sys.executable, "-m", "kohakuriver", "task", "kill", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7  completed\n", "")
