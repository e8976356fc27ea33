"""What people see of tasks."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kohakuriver.client.output import Screen
from kohakuriver.client.task_view import reasons, status_word, task_detail, wish
from kohakuriver.model import host_api as api
from kohakuriver.model.codec import encode
from kohakuriver.model.lifecycle import Desired, Status
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.task import Task
from tests.client.conftest import River
from tests.client.made_up_host import FIRST, MadeUpHost, task

EVIL = "\x1b]0;owned\x07\x9b2J\u202eexe"
SLY = "\x9b2J\u202eowned"  # what even the host lets into a name
ENTRIES = ["kill", "pause", "resume", "approve", "reject", "status"]


def test_the_list_has_a_line_a_task_and_what_matters_first(host: MadeUpHost, river: River) -> None:
    host.answer(
        api.TASK_LIST, [task(1, name="train", required_gpus=[0, 1]), task(0, status=Status.FAILED, exit_code=3)]
    )
    told = river("task", "list")
    assert (told.code, told.err) == (0, "")
    head, first, second = told.out.splitlines()
    assert head.split() == ["TASK", "STATUS", "NODE", "OWNER", "CORES", "GPUS", "MEMORY", "AGE", "TOOK", "COMMAND"]
    assert first.split()[:6] == [str(FIRST + 1), "completed", "alpha", "ada", "1", "0,1"]
    assert first.endswith("1m02s  train: echo hello")
    assert "failed (3)" in second


def test_an_empty_list_is_a_heading_and_no_error(host: MadeUpHost, river: River) -> None:
    host.answer(api.TASK_LIST, [])
    told = river("task", "list")
    assert (told.code, len(told.out.splitlines())) == (0, 1)


def test_filters_reach_the_host(host: MadeUpHost, river: River) -> None:
    river("task", "list", "-s", "running", "-n", "alpha", "--owner", "ada", "--before", "9", "-l", "7")
    river("task", "my", "-s", "failed")
    river("task", "pending", "--limit", "3")
    assert [request for _, request in host.asked] == [
        ListAll(status=Status.RUNNING, node="alpha", owner="ada", before=9, limit=7),  # type: ignore[arg-type]
        ListMine(status=Status.FAILED),
        ListMine(limit=3),
    ]


def paged(request: ListAll) -> list[Task]:
    """1,200 tasks, newest first."""
    newest = min(request.before or FIRST + 1200, FIRST + 1200)
    count = min(request.limit, newest - FIRST)
    return [task(newest - FIRST - 1 - number) for number in range(count)]


@pytest.mark.parametrize("words", [["--all"], ["--all", "-l", "5"]])
def test_all_pages_are_read_to_the_end(host: MadeUpHost, river: River, words: list[str]) -> None:
    host.answer(api.TASK_LIST, paged)
    told = river("task", "list", *words)
    ids = [line.split()[0] for line in told.out.splitlines()[1:]]
    assert ids == [str(FIRST + number) for number in reversed(range(1200))]
    assert len(host.asked) == 2
    assert [found["task_id"] for found in json.loads(river("task", "list", "--json", *words).out)] == ids


def test_one_page_is_one_page(host: MadeUpHost, river: River) -> None:
    host.answer(api.TASK_LIST, paged)
    assert len(river("task", "list").out.splitlines()) == 51


def test_status_says_everything_there_is(host: MadeUpHost, river: River) -> None:
    waiting = task(
        name="train",
        status=Status.PENDING,
        reason="alpha: 4 cores asked, 2 free; beta: draining",
        required_cores=4,
        required_memory_bytes=8 * 10**9,
        required_gpus=2,
        registry_image="python:3.12",
        env_vars={"A": "1"},
        secret_names=["KEY"],
        time_limit_seconds=7200,
        max_attempts=3,
        target="alpha:0",
        assigned_node=None,
        started_at=None,
        completed_at=None,
        exit_code=None,
    )
    host.answer(api.TASK_SHOW, waiting)
    told = river("task", "status", str(FIRST)).out
    for line in (
        f"task       {FIRST}  train",
        "why        alpha: 4 cores asked, 2 free\n           beta: draining",
        "command    echo hello",
        "in         image python:3.12",
        "node       -, asked: alpha:0",
        "asks for   4 cores, 8.0G of memory, 2 GPUs",
        "limits     2h00m of time",
        "variables  A=1",
        "secrets    KEY=@…",
        "attempts   1 of 3",
    ):
        assert f"{line}\n" in told
    assert told.startswith(f"task       {FIRST}  train\nstatus     pending, for ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": Status.FAILED, "exit_code": 3}, "failed (3)"),
        ({"status": Status.FAILED, "exit_code": None, "signal": 9}, "failed (signal 9)"),
        ({"status": Status.FAILED, "exit_code": None}, "failed"),
        ({"status": Status.RUNNING, "desired": Desired.KILL}, "running (killing)"),
        ({"status": Status.KILLED, "desired": Desired.KILL}, "killed"),
        ({"status": Status.PAUSED, "desired": Desired.PAUSE}, "paused"),
        ({"status": Status.PAUSED, "desired": Desired.RUN}, "paused (resuming)"),
        ({"status": Status.RUNNING, "desired": Desired.RUN}, "running"),
    ],
)
def test_a_status_says_how_it_ended_and_what_is_about_to_change_it(changes: dict[str, Any], told: str) -> None:
    assert status_word(task(**changes)) == told
    assert not wish(task())


def test_reasons_take_a_line_each() -> None:
    assert reasons(task(reason="alpha: full; beta: draining (new disk; hands off)\ngamma: away")) == [
        "alpha: full",
        "beta: draining (new disk; hands off)",
        "gamma: away",
    ]


def test_history_tells_every_step(host: MadeUpHost, river: River) -> None:
    head, first, second, third = river("task", "history", "5").out.splitlines()
    assert head.split() == ["WHEN", "WHAT", "STATUS", "ATTEMPT", "NODE", "BY", "DETAIL"]
    assert first.split() == ["2024-05-01T10:00:00.000Z", "submitted", "pending", "-", "-", "ada"]
    assert second.split() == ["2024-05-01T10:00:00.000Z", "placed", "assigning", "1", "alpha", "-"]
    assert third.split()[1:3] == ["asked", "running"]


@pytest.mark.parametrize("verb", ENTRIES)
def test_each_change_asks_its_own_route_for_the_task_named(host: MadeUpHost, river: River, verb: str) -> None:
    told = river("task", verb, "7")
    assert (told.code, told.err) == (0, "")
    ((route, request),) = host.asked
    assert (route, request.task_id) == (f"task.{verb}", 7)
    if verb != "status":
        assert told.out == "7  completed\n"


def test_a_refusal_carries_its_reason(host: MadeUpHost, river: River) -> None:
    river("task", "reject", "--reason", "too large", "7", "8")
    assert [(request.task_id, request.reason) for _, request in host.asked] == [(7, "too large"), (8, "too large")]


@pytest.mark.parametrize("words", [["list"], ["my"], ["pending"], ["status", "5"], ["history", "5"], ["kill", "5"]])
def test_json_is_what_the_host_answered(host: MadeUpHost, river: River, words: list[str]) -> None:
    told = river("task", *words, "--json")
    (name,) = {name for name, _ in host.asked}
    route = next(route for route in api.ROUTES if route.name == name)
    answered = host.replies[name](host.asked[0][1])
    assert told.out.count("\n") == 1
    assert json.loads(told.out) == encode(answered) and route.gives is not None


def test_json_keeps_what_this_client_does_not_know(host: MadeUpHost, river: River) -> None:
    from kohakuriver.wire.serve import Encoded

    host.answer(api.TASK_SHOW, Encoded('{"task_id":"5","colour":"blue"}'))
    assert json.loads(river("task", "status", "5", "--json").out) == {"task_id": "5", "colour": "blue"}


@pytest.mark.parametrize("words", [["list"], ["status", "5"], ["list", "--json"], ["status", "5", "--json"]])
def test_nothing_that_a_task_carries_commands_the_terminal(host: MadeUpHost, river: River, words: list[str]) -> None:
    evil = task(
        name=SLY,
        command=EVIL,
        arguments=[EVIL],
        env_vars={"A": EVIL},
        owner=EVIL,
        reason=EVIL,
        error_message=EVIL,
        assigned_node=EVIL,
        target=EVIL,
        working_dir=f"/{SLY}",
        additional_mounts=[f"/{SLY}:/b"],
        rejection_reason=EVIL,
    )
    host.answer(api.TASK_LIST, [evil])
    host.answer(api.TASK_SHOW, evil)
    told = river("task", *words)
    assert told.code == 0
    assert told.out.replace("\n", "").isprintable()
    assert "owned" in told.out


def test_nothing_in_an_error_commands_the_terminal(host: MadeUpHost, river: River) -> None:
    from kohakuriver.model.errors import Conflict

    host.in_turn(api.TASK_SHOW, Conflict(f"task {EVIL}\n{EVIL}"))
    told = river("task", "status", "5")
    assert told.err.count("\n") == 1 and told.err[:-1].isprintable()
    assert river("task", f"list{EVIL}").err[:-1].isprintable()


def test_a_detail_leaves_out_what_there_is_not() -> None:
    import io

    names = [line.split()[0] for line in task_detail(Screen(io.StringIO()), replace(task(), owner=""), 0.0)]
    assert names == ["task", "status", "command", "node", "asks", "submitted", "started", "ended", "output"]
