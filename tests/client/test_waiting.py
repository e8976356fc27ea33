"""Waiting for tasks: until they have ended, with their exit codes, across a host that goes away."""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kohakuriver.client.command import Notes, Order
from kohakuriver.client.commands.task import COMMANDS
from kohakuriver.client.output import Screen
from kohakuriver.client.pace import PATIENCE_SECONDS, Clock, Patience, Pauses
from kohakuriver.client.waiting import exit_code_of, has_ended, wait_for
from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.codec import Snowflake, encode
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.task import RetryOn, Task
from tests.client.conftest import River
from tests.client.made_up_host import FIRST, RUNNING, MadeUpHost, task

S = Status
LOST: dict[str, Any] = {"status": S.LOST, "completed_at": None, "exit_code": None}


class Time:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, lambda: self.at, self.sleep)


class Told:
    """A session that answers in turn, and stays with its last answer."""

    def __init__(self, *answers: Task | Exception) -> None:
        self.left = list(answers)

    def ask(self, route: Any, request: Any) -> Any:
        answer = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(answer, Exception):
            raise answer
        return encode(replace(answer, task_id=request.task_id))

    def understand(self, route: Any, plain: Any) -> Any:
        from kohakuriver.model.codec import decode

        return decode(route.gives, plain, strict=False)


def order(time: Time, *answers: Task | Exception) -> Order:
    command = next(command for command in COMMANDS if command.verb == "wait")
    notes = Notes(io.StringIO(), False)
    session: Any = Told(*answers)
    return Order(command, argparse.Namespace(), session, Screen(io.StringIO()), notes, time.clock)


def said(made: Order) -> str:
    assert isinstance(made.notes.err, io.StringIO)
    return made.notes.err.getvalue()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": S.COMPLETED, "exit_code": 0}, 0),
        ({"status": S.FAILED, "exit_code": 3}, 3),
        ({"status": S.FAILED, "exit_code": None, "signal": 15}, 143),
        ({"status": S.FAILED, "exit_code": None}, 1),
        ({"status": S.FAILED, "exit_code": 0}, 1),
        ({"status": S.FAILED, "exit_code": 70_000}, 1),
        ({"status": S.KILLED, "exit_code": None, "signal": 9}, 137),
        ({"status": S.KILLED, "exit_code": None}, 1),
        ({"status": S.KILLED_OOM, "exit_code": 137, "signal": None}, 137),
        ({"status": S.REJECTED, "exit_code": None}, 1),
        ({"status": S.LOST, "exit_code": None}, 1),
    ],
)
def test_a_tasks_end_becomes_an_exit_code(changes: dict[str, Any], code: int) -> None:
    assert exit_code_of(task(**changes)) == code


@pytest.mark.parametrize("status", Status)
def test_waiting_ends_with_every_final_status_and_with_no_other(status: Status) -> None:
    unfinished = {S.PENDING_APPROVAL, S.PENDING, S.ASSIGNING, S.RUNNING, S.PAUSED}
    assert has_ended(task(status=status)) == (status not in unfinished)


def test_a_lost_task_with_another_try_has_not_ended() -> None:
    lost = task(status=S.LOST, tries=1, max_attempts=2, retry_on=[RetryOn.LOSS])
    assert not has_ended(lost)
    assert has_ended(replace(lost, tries=2))


def test_all_are_waited_for_and_come_back_in_order() -> None:
    time = Time()
    made = order(time, task(**RUNNING), task(), task(status=S.FAILED, exit_code=2))
    tasks, plain = wait_for(made, [Snowflake(1), Snowflake(2)])
    assert [(t.task_id, t.status) for t in tasks] == [(1, S.FAILED), (2, S.COMPLETED)]
    assert [p["task_id"] for p in plain] == ["1", "2"]


def test_the_pauses_grow_to_a_second_at_most() -> None:
    time = Time()
    wait_for(order(time, *[task(**RUNNING)] * 30, task()), [Snowflake(1)])
    assert time.slept[0] == 0.02 and time.slept == sorted(time.slept) and max(time.slept) == 1.0


def test_a_host_that_comes_back_is_waited_for() -> None:
    away = errors.HostUnreachable("away")
    made = order(Time(), task(**RUNNING), away, away, away, task())
    assert wait_for(made, [Snowflake(1)])[0][0].status is S.COMPLETED
    assert said(made) == "kohakuriver: the host does not answer just now; trying again for 10 minutes\n"


def test_one_broken_connection_is_not_worth_a_word() -> None:
    made = order(Time(), task(**RUNNING), errors.HostUnreachable("away"), task())
    assert wait_for(made, [Snowflake(1)]) and said(made) == ""


def test_a_host_that_does_not_come_back_is_an_error_in_the_end() -> None:
    time = Time()
    with pytest.raises(errors.HostUnreachable, match="away"):
        wait_for(order(time, task(**RUNNING), errors.HostUnreachable("away")), [Snowflake(1)])
    assert PATIENCE_SECONDS < time.at < PATIENCE_SECONDS + 10


@pytest.mark.parametrize("error", [errors.HostUnreachable("nobody"), errors.NotFound("no such task")])
def test_a_host_that_never_answered_is_not_waited_for(error: errors.RiverError) -> None:
    time = Time()
    with pytest.raises(type(error)):
        wait_for(order(time, error), [Snowflake(1)])
    assert time.slept == []


def test_a_task_that_vanishes_ends_the_wait() -> None:
    with pytest.raises(errors.NotFound):
        wait_for(order(Time(), task(**RUNNING), errors.NotFound("gone")), [Snowflake(1)])


def test_a_lost_task_is_told_to_everybody() -> None:
    made = order(Time(), task(**LOST))
    wait_for(made, [Snowflake(1)])
    assert said(made) == "kohakuriver: 1 is lost: alpha is silent; wait again for it to come back\n"


def test_patience_begins_anew_when_it_worked_in_between() -> None:
    time, told = Time(), list[str]()
    patience = Patience(time.clock, told.append)
    for _ in range(2000):
        patience.well()
        patience.bear(errors.NodeUnreachable("away"))
    assert time.at > 100 and told == []


def test_pauses_can_begin_anew() -> None:
    time = Time()
    pauses = Pauses(time.clock, first=1, most=3, factor=2)
    for _ in range(3):
        pauses.pause()
    pauses.reset()
    pauses.pause()
    assert time.slept == [1, 2, 3, 1]


@pytest.mark.parametrize(("words", "shown"), [(["submit", "--wait", "--", "x"], [str(FIRST)]), (["wait", "5"], [])])
def test_waiting_ends_with_the_exit_code_of_the_task(
    host: MadeUpHost, river: River, words: list[str], shown: list[str]
) -> None:
    host.in_turn(api.TASK_SHOW, task(**RUNNING), task(**RUNNING), task(status=S.FAILED, exit_code=42))
    told = river("task", *words)
    assert (told.code, told.out.splitlines(), told.err) == (42, shown, "")


def ends(**codes: int) -> Callable[[api.TaskId], Task]:
    return lambda asked: task(
        task_id=asked.task_id, status=S.FAILED if codes[f"t{asked.task_id}"] else S.COMPLETED,
        exit_code=codes[f"t{asked.task_id}"],
    )  # fmt: skip


def test_of_several_the_first_that_did_not_end_well_counts(host: MadeUpHost, river: River) -> None:
    host.answer(api.TASK_SHOW, ends(t1=0, t2=7, t3=5))
    assert river("task", "wait", "1", "2", "3").code == 7
    assert river("task", "wait", "3", "2").code == 5
    assert river("task", "wait", "1", "1").code == 0


def test_json_of_a_wait_is_the_task_or_the_tasks(host: MadeUpHost, river: River) -> None:
    host.answer(api.TASK_SHOW, ends(t1=0, t2=7))
    assert json.loads(river("task", "wait", "1", "--json").out)["status"] == "completed"
    assert [t["exit_code"] for t in json.loads(river("task", "wait", "1", "2", "--json").out)] == [0, 7]
