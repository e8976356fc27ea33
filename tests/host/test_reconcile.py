"""What a report means for the rows: case by case, and by properties that hold for any report."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.host.services.reconcile import (
    GONE,
    Elsewhere,
    adopted,
    judge,
    judge_gone,
    judge_never_came,
    judge_refusal,
    reconcile,
)
from kohakuriver.host.store.tasks import Live
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import ADOPTABLE, ON_NODE, Desired, Event, Status, after
from kohakuriver.model.report import AttemptRef, Claim, Report, State, WorkloadState
from kohakuriver.model.task import RetryOn, Task

NOW = 1_700_000_000.0
LIVE = sorted(ON_NODE | {Status.LOST})


def row(
    task_id: int = 1,
    status: Status = Status.RUNNING,
    attempt: int = 1,
    desired: Desired = Desired.RUN,
    store: str | None = None,
) -> Live:
    return Live("n1", Snowflake(task_id), attempt, status, desired, 0, 1, 0, "[]", store)


def report(*states: WorkloadState) -> Report:
    return Report(instance="life", sequence=1, workloads=list(states), store="records")


def state(task_id: int = 1, at: State = State.RUNNING, attempt: int = 1, **more: Any) -> WorkloadState:
    return WorkloadState(task_id=Snowflake(task_id), attempt=attempt, state=at, **more)


def task(status: Status = Status.RUNNING, **more: Any) -> Task:
    members: dict[str, Any] = {"attempt": 1, "tries": 1, "assigned_node": "n1", "assigned_gpus": [0]} | more
    return Task(
        task_id=Snowflake(1),
        batch_id=Snowflake(1),
        owner="local",
        command="true",
        status=status,
        submitted_at="",
        **members,
    )


def never(_: Live) -> bool:
    return False


def good(state: WorkloadState) -> bool:
    return state.claim is not None and state.claim.proof == "good"


def claim(proof: str = "good") -> Claim:
    return Claim(owner="ada", gpus=[1], proof=proof)


# --- rows against a report ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", list(State))
@pytest.mark.parametrize("status", LIVE)
def test_a_row_and_its_attempt_make_news_only_when_they_differ(status: Status, at: State) -> None:
    verdict = reconcile([row(status=status)], report(state(at=at)), {}, never, good)
    same = (status, at) in {
        (Status.RUNNING, State.RUNNING), (Status.PAUSED, State.PAUSED), (Status.ASSIGNING, State.PREPARING),
        (Status.RUNNING, State.PREPARING), (Status.PAUSED, State.PREPARING),
    }  # fmt: skip
    assert bool(verdict.news) is not same
    assert not verdict.gone and not verdict.fenced and not verdict.ended and not verdict.unknown


@pytest.mark.parametrize(
    ("standing", "awaited", "gone"),
    [
        (row(status=Status.RUNNING), True, True),
        (row(status=Status.PAUSED), True, True),
        (row(status=Status.ASSIGNING), True, False),
        (row(status=Status.ASSIGNING), False, True),
        (row(status=Status.LOST), False, False),
        (row(status=Status.LOST, desired=Desired.KILL), False, True),
        (row(status=Status.LOST, desired=Desired.KILL), True, False),
    ],
)
def test_what_a_report_does_not_name_is_gone_unless_it_may_still_come(
    standing: Live, awaited: bool, gone: bool
) -> None:
    assert bool(reconcile([standing], report(), {}, lambda _: awaited, good).gone) is gone


@pytest.mark.parametrize("status", [Status.ASSIGNING, Status.LOST])
@pytest.mark.parametrize(("store", "awaited"), [("records", False), ("records", True), ("others", False)])
def test_what_the_records_it_was_to_be_in_do_not_name_never_came_unless_it_may_still(
    status: Status, store: str, awaited: bool
) -> None:
    verdict = reconcile([row(status=status, store=store)], report(), {}, lambda _: awaited, good)
    assert bool(verdict.never_came) is (store == "records" and not awaited)
    assert bool(verdict.gone) is (store == "others" and status is Status.ASSIGNING)
    assert not reconcile([row(status=status, store=store)], report(state()), {}, never, good).never_came


@pytest.mark.parametrize(
    ("desired", "becomes"),
    [(Desired.RUN, Status.PENDING), (Desired.PAUSE, Status.PENDING), (Desired.KILL, Status.KILLED)],
)
@pytest.mark.parametrize("status", [Status.ASSIGNING, Status.LOST])
def test_what_never_came_waits_again_as_if_it_had_not_been_placed(
    status: Status, desired: Desired, becomes: Status
) -> None:
    change = judge_never_came(task(status, desired=desired), NOW)
    assert after(status, change.event) is becomes
    assert becomes is Status.KILLED or change.values["tries"] == 0


@pytest.mark.parametrize(
    ("told", "place", "outcome"),
    [
        (state(), None, "unknown"),
        (state(at=State.ENDED), None, "unknown"),
        (state(), Elsewhere(2, Status.RUNNING, "n2"), "fenced"),
        (state(at=State.ENDED), Elsewhere(2, Status.RUNNING, "n2"), "ended"),
        (state(), Elsewhere(1, Status.PENDING, None), "fenced"),
        (state(at=State.PREPARING), Elsewhere(1, Status.KILLED, "n1"), "fenced"),
        (state(at=State.ENDED), Elsewhere(1, Status.COMPLETED, "n1"), "ended"),
        (state(at=State.PAUSED), Elsewhere(1, Status.COMPLETED, "n1"), "fenced"),
        (state(attempt=2), Elsewhere(1, Status.STOPPED, "n1"), "unknown"),
        (state(attempt=2, claim=claim("made up")), Elsewhere(1, Status.STOPPED, "n1"), "unknown"),
        (state(attempt=2, claim=claim()), Elsewhere(1, Status.STOPPED, "n1"), "later"),
        (state(attempt=1, claim=claim()), Elsewhere(0, Status.PENDING, None), "later"),
        (state(attempt=1, claim=claim()), Elsewhere(0, Status.PENDING_APPROVAL, None), "unknown"),
        (state(attempt=2, claim=claim()), Elsewhere(1, Status.KILLED, "n1"), "unknown"),
        (state(attempt=1, claim=claim()), Elsewhere(2, Status.RUNNING, "n1"), "fenced"),
        (state(claim=claim()), Elsewhere(1, Status.RUNNING, "n2"), "unknown"),
    ],
)
def test_what_no_row_of_the_node_knows_is_fenced_ended_adopted_or_unknown(
    told: WorkloadState, place: Elsewhere | None, outcome: str
) -> None:
    verdict = reconcile([], report(told), {1: place} if place else {}, never, good)
    found = {name: getattr(verdict, name) for name in ("fenced", "ended", "unknown", "gone", "news", "later")}
    assert [name for name, refs in found.items() if refs] == [outcome]


def test_an_older_attempt_beside_the_newer_one_is_fenced_and_the_newer_one_believed() -> None:
    verdict = reconcile(
        [row(attempt=2)],
        report(state(attempt=1), state(attempt=2)),
        {1: Elsewhere(2, Status.RUNNING, "n1")},
        never,
        good,
    )
    assert [(ref.task_id, ref.attempt) for ref in verdict.fenced] == [(1, 1)] and not verdict.gone and not verdict.news


@pytest.mark.parametrize(
    ("told", "gone"), [(None, False), (claim(), False), (claim("made up"), True)], ids=["not asked", "proven", "lie"]
)
def test_a_row_of_the_past_is_not_given_up_while_its_node_may_have_a_later_attempt(
    told: Claim | None, gone: bool
) -> None:
    elsewhere = {1: Elsewhere(1, Status.RUNNING, "n1")}
    verdict = reconcile([row()], report(state(attempt=2, claim=told)), elsewhere, never, good)
    assert bool(verdict.gone) is gone


@pytest.mark.parametrize("status", sorted(ADOPTABLE))
@pytest.mark.parametrize("at", list(State))
def test_a_task_of_a_restored_database_comes_to_stand_with_the_later_attempt(status: Status, at: State) -> None:
    told = state(attempt=3, at=at, exit_code=0 if at is State.ENDED else None, claim=claim())
    change = adopted(task(status), told, "n9")
    becomes = played(replace(task(status), status=after(status, change.event), **change.values), told)
    assert (becomes.attempt, becomes.assigned_node, becomes.assigned_gpus) == (3, "n9", [1])
    same = {State.PREPARING: Status.ASSIGNING, State.ENDED: Status.COMPLETED}
    assert becomes.status is same.get(at, Status(at) if at in ("running", "paused") else status)


STATES = st.builds(
    state,
    st.integers(1, 4),
    st.sampled_from(list(State)),
    st.integers(1, 3),
    exit_code=st.none() | st.integers(0, 3),
    claim=st.sampled_from([None, claim(), claim("made up")]),
)
ROWS = st.lists(
    st.builds(row, st.integers(1, 4), st.sampled_from(LIVE), st.integers(1, 3), st.sampled_from(list(Desired))),
    unique_by=lambda r: r.task_id,
)


@settings(deadline=None, max_examples=200)
@given(ROWS, st.lists(STATES, unique_by=lambda s: (s.task_id, s.attempt)), st.booleans())
def test_every_attempt_and_every_row_has_one_outcome(
    rows: list[Live], states: list[WorkloadState], awaited: bool
) -> None:
    elsewhere: dict[int, Elsewhere] = {r.task_id: Elsewhere(r.attempt, r.status, r.node) for r in rows}
    verdict = reconcile(rows, report(*states), elsewhere, lambda _: awaited, good)
    standing = {(r.task_id, r.attempt): r for r in rows}
    strays = [(s.task_id, s.attempt) for s in states if (s.task_id, s.attempt) not in standing]
    refs: list[AttemptRef | WorkloadState] = [*verdict.ended, *verdict.fenced, *verdict.unknown, *verdict.later]
    outcomes = [(ref.task_id, ref.attempt) for ref in refs]
    assert len(set(outcomes)) == len(outcomes) and set(outcomes) <= set(strays)
    assert {(s.task_id, s.attempt) for s in verdict.news} <= standing.keys()
    reported = {(s.task_id, s.attempt) for s in states}
    for each in verdict.gone:
        assert (each.task_id, each.attempt) not in reported
    for told in verdict.later:
        assert told.attempt > elsewhere[told.task_id].attempt and good(told)
    for ref in verdict.fenced:
        assert ref.attempt < elsewhere[ref.task_id].attempt, "nothing that is of now is fenced"


# --- what becomes of a task ---------------------------------------------------------------------------------------------


def played(start: Task, told: WorkloadState) -> Task:
    for change in judge(start, told, NOW):
        start = replace(start, status=after(start.status, change.event), **change.values)
    return start


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (state(at=State.ENDED, exit_code=0), Status.COMPLETED),
        (state(at=State.ENDED, exit_code=1), Status.FAILED),
        (state(at=State.ENDED, exit_code=137), Status.FAILED),
        (state(at=State.ENDED, signal=9), Status.FAILED),
        (state(at=State.ENDED, exit_code=137, oom_killed=True), Status.KILLED_OOM),
        (state(at=State.ENDED, signal=15, killed=True), Status.KILLED),
        (state(at=State.ENDED, exit_code=0, killed=True), Status.KILLED),
        (state(at=State.ENDED, exit_code=0, timed_out=True), Status.FAILED),
        (state(at=State.ENDED, signal=9, killed=True, timed_out=True), Status.FAILED),
        (state(at=State.RUNNING), Status.RUNNING),
        (state(at=State.PAUSED), Status.PAUSED),
    ],
)
@pytest.mark.parametrize("before", LIVE)
def test_a_task_comes_to_stand_where_its_runner_says(before: Status, told: WorkloadState, status: Status) -> None:
    becomes = played(task(before), told)
    assert becomes.status is status
    if told.state is State.ENDED:
        assert (becomes.exit_code, becomes.signal) == (told.exit_code, told.signal) and becomes.completed_at
    else:
        assert becomes.completed_at is None and becomes.error_message is None


def test_a_lost_task_whose_attempt_is_being_prepared_is_found_starting() -> None:
    found = played(task(Status.LOST, completed_at="x", error_message="y"), state(at=State.PREPARING))
    assert (found.status, found.completed_at, found.error_message) == (Status.ASSIGNING, None, None)


@pytest.mark.parametrize(("elsewhere", "status"), [(True, Status.PENDING), (False, Status.FAILED)])
def test_a_lost_task_that_turns_out_never_to_have_run_waits_again_or_fails(elsewhere: bool, status: Status) -> None:
    told = state(at=State.ENDED, refused=True, retry_elsewhere=elsewhere, message="no daemon")
    assert played(task(Status.LOST, tries=1), told).status is status


def test_an_attempt_being_prepared_is_no_news_of_an_assigned_task() -> None:
    assert judge(task(Status.ASSIGNING), state(at=State.PREPARING), NOW) == []


def test_times_are_those_of_the_runner_and_else_of_now() -> None:
    known = played(task(Status.ASSIGNING), state(at=State.ENDED, exit_code=0, started_at=10.0, ended_at=20.0))
    assert (known.started_at, known.completed_at) == ("1970-01-01T00:00:10.000Z", "1970-01-01T00:00:20.000Z")
    assert played(task(), state(at=State.ENDED, exit_code=0)).completed_at == "2023-11-14T22:13:20.000Z"


def test_a_time_limit_says_what_it_was() -> None:
    limited = task(time_limit_seconds=7200)
    assert played(limited, state(at=State.ENDED, timed_out=True)).error_message == "its time limit of 2h00m was reached"


@pytest.mark.parametrize("why", list(RetryOn))
@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_retry_is_granted_by_cause_and_number_and_leaves_nothing_behind(why: RetryOn, tries: int) -> None:
    start = task(tries=tries, max_attempts=3, retry_on=[why], started_at="x", desired=Desired.PAUSE)
    failed = played(start, state(at=State.ENDED, exit_code=5, message="m"))
    assert failed.status is (Status.PENDING if why is RetryOn.FAILURE and tries < 3 else Status.FAILED)
    lost = judge_gone(start, NOW, GONE)
    assert lost is not None
    assert lost.event is (Event.RETRIED if why is RetryOn.LOSS and tries < 3 else Event.NODE_LOST)
    if failed.status is Status.PENDING:
        nothing = (failed.assigned_node, failed.started_at, failed.completed_at, failed.exit_code, failed.error_message)
        assert nothing == (None,) * 5 and failed.assigned_gpus == [] and failed.desired is Desired.RUN
        assert failed.tries == tries, "a try that ran counts"


def test_who_is_to_be_killed_is_not_tried_again() -> None:
    start = task(max_attempts=9, desired=Desired.KILL)
    assert played(start, state(at=State.ENDED, exit_code=5)).status is Status.FAILED
    gone = judge_gone(start, NOW, GONE)
    assert gone is not None and gone.event is Event.KILLED
    silent = judge_gone(start, NOW, "its node was silent")
    assert silent is not None and silent.event is Event.NODE_LOST, "killed is not shown before it is true"


def test_a_kill_or_a_success_is_never_tried_again() -> None:
    start = task(max_attempts=9)
    assert played(start, state(at=State.ENDED, exit_code=0)).status is Status.COMPLETED
    assert played(start, state(at=State.ENDED, signal=9, killed=True)).status is Status.KILLED


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_refusal_sends_it_elsewhere_without_counting_or_fails_it(elsewhere: bool) -> None:
    start = task(Status.ASSIGNING)
    told = state(at=State.ENDED, refused=True, retry_elsewhere=elsewhere, message="no such image")
    becomes = played(start, told)
    assert (becomes.status, becomes.tries) == ((Status.PENDING, 0) if elsewhere else (Status.FAILED, 1))
    assert elsewhere or becomes.error_message == "no such image"
    killed = judge_refusal(replace(start, desired=Desired.KILL), "x", elsewhere, NOW)
    assert killed.event is Event.KILLED


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(list(Status)), st.sampled_from(list(Desired)), st.integers(1, 3), st.sampled_from(list(State)),
    st.tuples(*[st.booleans()] * 5), st.none() | st.integers(0, 3),
)  # fmt: skip
def test_no_report_makes_an_event_that_the_lifecycle_refuses(
    status: Status, desired: Desired, tries: int, at: State, flags: tuple[bool, ...], code: int | None
) -> None:
    names = ("oom_killed", "killed", "timed_out", "refused", "retry_elsewhere")
    told = state(at=at, exit_code=code, **dict(zip(names, flags, strict=True)))
    start = task(status, desired=desired, tries=tries, max_attempts=2)
    if status not in LIVE:
        assert judge(start, told, NOW) == [], "final stays final, and what waits again has nothing to do with it"
        return
    assert played(start, told).status is not Status.ASSIGNING or at is State.PREPARING
    change = judge_gone(start, NOW, GONE)
    if change:
        after(status, change.event)
