"""How an attempt stands and how it ended, decided without any machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.model import codec
from kohakuriver.model.errors import EngineFailed, NotAllowed
from kohakuriver.model.report import State, WorkloadState
from kohakuriver.runner import attempt
from kohakuriver.runner.attempt import Accepted, Held, KillOrder, Why, one_line, preparing, stricter
from kohakuriver.system.engine import Exit, Observed, Phase
from tests.runner.stage import key, request

NOW = 1_700_000_000.0


def held(order: KillOrder | None = None) -> Held:
    accepted = Accepted(request("true"), Path("/logs"), 1000)
    return Held(accepted, preparing(accepted.request), order)


def seen(phase: Phase, code: int | None = None, finished_at: float | None = None) -> Observed:
    return Observed(key(), phase, None if code is None else Exit(code), NOW, finished_at)


def test_a_look_that_began_before_another_one_was_taken_tells_of_the_past() -> None:
    one = held()
    early, late = one.begin_look(), one.begin_look()
    assert one.take(seen(Phase.PAUSED), late)
    assert not one.take(seen(Phase.RUNNING), early)
    assert one.state.state is State.PAUSED
    assert one.take(seen(Phase.RUNNING), one.begin_look())


def test_what_is_over_stays_over_whatever_is_seen() -> None:
    one = held()
    one.state = replace(one.state, state=State.ENDED, exit_code=3)
    assert not one.take(seen(Phase.RUNNING), one.begin_look())
    assert one.state.exit_code == 3


def test_a_workload_that_was_seen_standing_has_run() -> None:
    for phase, has_run in ((Phase.CREATED, False), (Phase.RUNNING, True), (Phase.EXITED, True)):
        one = held()
        one.take(seen(phase, 0), one.begin_look())
        assert one.may_have_run == has_run


@pytest.mark.parametrize(
    ("asked_at", "finished_at", "pressed", "killed"),
    [(100.0, 99.0, False, False), (100.0, 100.5, False, True), (100.0, None, False, True), (100.0, 99.0, True, True)],
)
def test_killed_is_who_ended_after_it_was_asked(
    asked_at: float, finished_at: float | None, pressed: bool, killed: bool
) -> None:
    order = KillOrder(why=Why.ASKED, asked_at=asked_at, grace_seconds=1.0)
    end = attempt.exited(held(order), seen(Phase.EXITED, 0, finished_at), pressed, NOW)
    assert (end.killed, end.timed_out) == (killed, False)


def test_of_two_orders_the_first_reason_and_the_stricter_grace_count() -> None:
    limit = stricter(None, Why.TIME_LIMIT, 10.0, NOW)
    assert limit == KillOrder(why=Why.TIME_LIMIT, asked_at=NOW, grace_seconds=10.0)
    assert stricter(limit, Why.ASKED, 10.0, NOW + 5) is None
    assert stricter(limit, Why.ASKED, 0.0, NOW + 5) == replace(limit, grace_seconds=0.0)


def test_a_refusal_says_whether_another_node_might_do_better() -> None:
    state = preparing(request("true"))
    for why, elsewhere in (
        (EngineFailed("disk full", retry_elsewhere=True), True),
        (EngineFailed("no such image"), False),
        (NotAllowed("no"), False),
    ):
        end = attempt.refused(state, why, NOW)
        assert (end.state, end.refused, end.retry_elsewhere, end.message) == (State.ENDED, True, elsewhere, str(why))


def test_any_message_can_be_told_to_the_host() -> None:
    for text in ("x" * 10_000, "two\nlines\0", "half \ud800 pair", "☃" * 3000):
        state = attempt.refused(preparing(request("true")), EngineFailed(text), NOW)
        assert "\n" not in (state.message or "")
        told = codec.loads(codec.encode_text(state).encode())
        assert codec.decode(WorkloadState, told) == state


def test_a_note_joins_the_message() -> None:
    state = preparing(request("true"))
    assert attempt.with_note(state, "cut").message == "cut"
    assert attempt.with_note(replace(state, message="out of memory"), "cut").message == "out of memory; cut"
    assert one_line(" a \n b ") == "a b"
