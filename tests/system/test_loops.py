"""The loop supervisor: loops go on whatever happens in them, and end when told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from kohakuriver.model.errors import TooMany, Unavailable
from kohakuriver.system.loops import BACKOFF_CAP_SECONDS, Loops, Wake
from tests.manual_clock import ManualClock


def play(script: Callable[[ManualClock, Loops], Awaitable[None]], spawn_limit: int = 3) -> None:
    """Run a script on a hand-moved clock and make sure that nothing is left over."""

    async def body() -> None:
        clock = ManualClock()
        loops = Loops(clock, jitter=lambda: 0.999999, spawn_limit=spawn_limit)
        await script(clock, loops)
        await loops.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert clock.sleeping() == 0

    asyncio.run(body())


class Counter:
    """A step that counts its rounds and fails in the rounds it is told to."""

    def __init__(self, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.rounds = 0
        self._fails = fails

    async def __call__(self) -> None:
        self.rounds += 1
        if self._fails(self.rounds):
            raise OSError(f"round {self.rounds}")


def test_a_step_runs_at_once_and_then_every_interval() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        step = Counter()
        loops.start("tick", step, 10)
        await clock.settle()
        assert step.rounds == 1
        await clock.advance(9.9)
        assert step.rounds == 1
        await clock.advance(90.1)
        assert step.rounds == 11

    play(script)


def test_bells_during_a_step_bring_exactly_one_more_round() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        wake, rounds = Wake(), 0

        async def step() -> None:
            nonlocal rounds
            rounds += 1
            await clock.sleep(1)

        loops.start("dispatch", step, 3_600, wake)
        await clock.settle()
        for _ in range(5):
            wake.set()
        await clock.advance(5)
        assert rounds == 2
        wake.set()
        await clock.advance(5)
        assert rounds == 3
        await clock.advance(3_590)
        assert rounds == 3

    play(script)


def test_a_failed_step_is_logged_with_its_traceback_and_tried_again_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        step = Counter(fails=lambda number: number < 20)
        moments: list[float] = []

        async def timed() -> None:
            moments.append(clock.monotonic())
            await step()

        loops.start("flaky", timed, 5)
        await clock.advance(600)
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        assert gaps[0] == pytest.approx(0.5, rel=0.01)
        assert gaps[1] == pytest.approx(1.0, rel=0.01)
        assert max(gaps) <= BACKOFF_CAP_SECONDS
        assert gaps[18] == pytest.approx(BACKOFF_CAP_SECONDS, rel=0.01)
        assert gaps[19] == gaps[-1] == 5  # well again, so back to the interval

    with caplog.at_level(logging.ERROR):
        play(script)
    assert len(caplog.records) == 19
    assert "name=flaky" in caplog.text and "OSError: round 7" in caplog.text


def test_the_backoff_is_jittered_down_to_half() -> None:
    async def script(clock: ManualClock, _: Loops) -> None:
        loops, step = Loops(clock, jitter=lambda: 0.0), Counter(fails=lambda _: True)
        loops.start("flaky", step, 5)
        await clock.advance(0.24)
        assert step.rounds == 1
        await clock.advance(0.02)
        assert step.rounds == 2
        await loops.stop()

    play(script)


def test_a_bell_does_not_shorten_the_backoff_of_a_failing_step() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        wake, step = Wake(), Counter(fails=lambda number: number == 1)
        loops.start("dispatch", step, 3_600, wake)
        await clock.settle()
        wake.set()
        await clock.advance(0.4)
        assert step.rounds == 1
        await clock.advance(0.2)
        assert step.rounds == 2

    play(script)


def test_a_step_that_raises_before_it_awaits_does_not_end_its_loop() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        calls = 0

        def step() -> Awaitable[None]:
            nonlocal calls
            calls += 1
            raise ValueError("no coroutine at all")

        loops.start("broken", step, 1)
        await clock.advance(2)
        assert calls > 1

    play(script)


def test_a_cancellation_from_inside_a_step_does_not_end_its_loop() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        rounds = 0

        async def step() -> None:
            nonlocal rounds
            rounds += 1
            raise asyncio.CancelledError

        loops.start("cancelled", step, 1)
        await clock.advance(5)
        assert rounds > 1

    play(script)


def test_a_loop_is_stalled_when_its_step_runs_longer_than_three_intervals_and_thirty_seconds() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        async def hangs() -> None:
            await asyncio.Event().wait()

        loops.start("quick", hangs, 1)
        loops.start("slow", hangs, 20)
        loops.start("fine", Counter(), 3_600)
        await clock.advance(30)
        assert loops.stalled(clock.monotonic()) == []
        await clock.advance(1)
        assert loops.stalled(clock.monotonic()) == ["quick"]
        await clock.advance(30)
        assert loops.stalled(clock.monotonic()) == ["quick", "slow"]
        assert loops.last_finished("quick") is None
        assert loops.last_finished("fine") == clock.monotonic() - 61

    play(script)


def test_a_loop_that_does_not_get_its_turn_is_stalled() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        loops.start("tick", Counter(), 1)
        await clock.settle()
        assert loops.stalled(clock.monotonic() + 31) == []
        assert loops.stalled(clock.monotonic() + 31.5) == ["tick"]

    play(script)


def test_a_loop_in_its_backoff_is_not_stalled() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        loops.start("flaky", Counter(fails=lambda _: True), 1)
        for _ in range(300):
            await clock.advance(1)
            assert loops.stalled(clock.monotonic()) == []

    play(script)


def test_a_long_lived_coroutine_is_made_anew_when_it_fails_and_left_alone_when_it_returns() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        lives = 0

        async def listen() -> None:
            nonlocal lives
            lives += 1
            await clock.sleep(100)
            if lives < 3:
                raise ConnectionResetError

        loops.run("events", listen)
        await clock.advance(1_000)
        assert lives == 3
        loops.run("events", listen)  # the name is free again

    play(script)


def test_a_coroutine_that_lived_long_comes_back_quickly() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        births: list[float] = []

        async def listen() -> None:
            births.append(clock.monotonic())
            await clock.sleep(31)
            raise ConnectionResetError

        loops.run("events", listen)
        await clock.advance(400)
        assert {round(later - earlier, 1) for earlier, later in pairwise(births)} == {31.5}

    play(script)


def test_a_name_is_given_once() -> None:
    async def script(_: ManualClock, loops: Loops) -> None:
        loops.start("tick", Counter(), 1)
        with pytest.raises(ValueError, match="tick"):
            loops.start("tick", Counter(), 1)
        with pytest.raises(ValueError, match="tick"):
            loops.run("tick", lambda: asyncio.sleep(0))

    play(script)


def test_spawned_work_is_tracked_and_its_error_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        async def fails() -> None:
            await clock.sleep(1)
            raise KeyError("gone")

        task = loops.spawn("one shot", fails())
        await clock.advance(1)
        assert task.done() and task.exception() is None

    play(script)
    assert "name=one shot" in caplog.text and "KeyError: 'gone'" in caplog.text


def test_spawning_beyond_the_limit_is_refused_until_something_ends() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        for _ in range(3):
            loops.spawn("work", clock.sleep(10))
        with pytest.raises(TooMany, match="3 pieces"):
            loops.spawn("work", clock.sleep(10))
        await clock.advance(10)
        loops.spawn("work", clock.sleep(10))

    play(script)


def test_stop_waits_for_work_that_cleans_up_and_for_work_that_swallows_one_cancellation() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        ended: list[str] = []

        async def tidy() -> None:
            try:
                await clock.sleep(100)
            finally:
                await asyncio.sleep(0.01)
                ended.append("tidy")

        async def deaf() -> None:
            try:
                await clock.sleep(100)
            except asyncio.CancelledError:
                await clock.sleep(100)
            finally:
                ended.append("deaf")

        loops.start("tidy", tidy, 1)
        loops.run("deaf", deaf)
        await clock.settle()
        await loops.stop()
        assert sorted(ended) == ["deaf", "tidy"]

    play(script)


def test_work_spawned_and_stopped_before_its_first_line_leaves_no_warning() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        loops.spawn("never begun", clock.sleep(1))

    play(script)


def test_nothing_starts_once_the_program_is_stopping() -> None:
    async def script(clock: ManualClock, loops: Loops) -> None:
        await loops.stop()
        refused: list[Callable[[], Any]] = [
            lambda: loops.start("tick", Counter(), 1),
            lambda: loops.run("events", lambda: clock.sleep(1)),
            lambda: loops.spawn("work", clock.sleep(1)),
        ]
        for attempt in refused:
            with pytest.raises(Unavailable, match="stopping"):
                attempt()

    play(script)


def test_spawned_work_may_itself_stop_the_loops() -> None:
    async def script(_: ManualClock, loops: Loops) -> None:
        async def ask() -> None:
            await loops.stop()

        work: Coroutine[Any, Any, None] = ask()
        loops.start("tick", Counter(), 1)
        await loops.spawn("shutdown", work)

    play(script)
