"""What a container's record means, alone and beside Docker's word."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.system.container_record import AGAIN, BARRED, Record, parse, together
from kohakuriver.system.engine import Exit, Observed, Phase, WorkloadKey

KEY = WorkloadKey(7, 2)
CLAIMED, BEGAN = b"claimed 10.5\n", b"claimed 10.5\nbegan 11.25\n"


def docker_says(phase: Phase, code: int | None = None) -> Observed:
    return Observed(KEY, phase, None if code is None else Exit(code), 9.0, None if code is None else 30.0)


def test_a_life_is_read_line_by_line() -> None:
    assert parse(b"", 0) == Record()
    assert parse(CLAIMED, 5) == Record(pid=5, is_claimed=True, claimed_at=10.5)
    assert parse(BEGAN, 5).began_at == 11.25
    assert parse(BEGAN + b"exited 143 15 0 0 12.5\n", 0) == Record(
        is_claimed=True, claimed_at=10.5, began_at=11.25, exit=Exit(143, 15), ended_at=12.5
    )
    assert parse(BEGAN + b"exited 137 9 2 28 12.5\n", 0).exit == Exit(137, 9, oom_killed=True)
    assert parse(BEGAN + b"exited 0 0 0 28 12.5\n", 0).lost_errno == 28


def test_a_program_that_cannot_be_run_exits_as_shells_say_it() -> None:
    assert (parse(CLAIMED + b"failed 2 11\n", 0).exit, parse(CLAIMED + b"failed 13 11\n", 0).exit) == (
        Exit(127),
        Exit(126),
    )
    assert parse(CLAIMED + b"failed 13 11\n", 0).errno == 13


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"exited", b"began", b"x", b"1e999", b"\n"])).map(b" ".join))
def test_whatever_somebody_writes_into_a_record_it_can_be_read(text: bytes) -> None:
    record = parse(text, 0)
    assert (record.is_claimed or record.is_barred) == bool(text)
    assert together(docker_says(Phase.RUNNING), record).key == KEY


def test_it_is_settled_when_it_runs_or_never_will() -> None:
    assert not parse(b"", 5).is_settled
    assert not parse(CLAIMED, 5).is_settled
    for text, pid in ((BEGAN, 5), (CLAIMED + b"failed 2 11\n", 0), (CLAIMED, 0)):
        assert parse(text, pid).is_settled


@pytest.mark.parametrize(
    "says", [docker_says(Phase.CREATED), docker_says(Phase.RUNNING), docker_says(Phase.EXITED, 255)]
)
def test_an_end_that_was_put_down_is_the_truth_whatever_docker_says(says: Observed) -> None:
    record = parse(BEGAN + b"exited 3 0 0 0 12.5\n", 0)
    assert together(says, record) == Observed(KEY, Phase.EXITED, Exit(3), 11.25, 12.5)


@pytest.mark.parametrize(
    "says", [docker_says(Phase.CREATED), docker_says(Phase.RUNNING), docker_says(Phase.EXITED, 255)]
)
def test_what_nobody_claimed_has_not_begun_and_may_be_started(says: Observed) -> None:
    for text in (b"", BARRED):
        assert together(says, parse(text, 0)) == Observed(KEY, Phase.CREATED)
    assert parse(BARRED, 0).is_barred


def test_what_lives_runs_even_if_docker_forgot_that_it_started_it() -> None:
    assert together(docker_says(Phase.CREATED), parse(BEGAN, 5)) == Observed(KEY, Phase.RUNNING, started_at=11.25)
    assert together(docker_says(Phase.PAUSED), parse(BEGAN, 5)).phase is Phase.PAUSED
    assert together(docker_says(Phase.EXITED, 125), parse(BEGAN, -1)).phase is Phase.RUNNING


def test_of_one_that_died_without_a_word_docker_is_asked() -> None:
    record = parse(BEGAN, 0)
    assert together(docker_says(Phase.EXITED, 137), record) == Observed(KEY, Phase.EXITED, Exit(137), 11.25, 30.0)
    assert together(docker_says(Phase.RUNNING), record).phase is Phase.RUNNING, "it has not noticed yet"


@pytest.mark.parametrize("says", [docker_says(Phase.EXITED, 255), docker_says(Phase.CREATED)])
def test_an_exit_code_that_docker_made_up_is_lost_and_said_to_be(says: Observed) -> None:
    seen = together(says, parse(BEGAN, 0))
    assert (seen.phase, seen.exit) == (Phase.EXITED, Exit(None))


def test_a_vps_ends_when_docker_knows_because_only_then_its_files_can_be_had() -> None:
    record = parse(BEGAN + b"exited 3 0 0 0 12.5\n", 0)
    says = replace(docker_says(Phase.RUNNING), is_vps=True)
    assert together(says, record).phase is Phase.RUNNING
    assert together(replace(says, phase=Phase.EXITED), record).exit == Exit(3)


def test_what_may_run_again_stands_as_docker_says() -> None:
    says = docker_says(Phase.EXITED, 3)
    assert together(says, parse(AGAIN, 0)) == says


def test_without_a_record_docker_is_believed_but_for_the_code_that_it_makes_up() -> None:
    assert together(docker_says(Phase.CREATED), None).phase is Phase.CREATED
    assert together(docker_says(Phase.RUNNING), None).phase is Phase.RUNNING
    assert together(docker_says(Phase.EXITED, 3), None).exit == Exit(3)
    assert together(docker_says(Phase.EXITED, 255), None).exit == Exit(None)
