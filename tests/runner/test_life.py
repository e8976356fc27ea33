"""An attempt's life on a node that is well: it runs, ends, is killed, paused, limited in time, and is forgotten."""

import signal
from pathlib import Path

import pytest

from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.report import State
from tests.runner.stage import Stage, key, play


def test_a_task_runs_and_its_end_is_told_once_and_forgotten(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        accepted = await stage.shell("echo hello; echo oops >&2; exit 7")
        assert accepted.state is State.PREPARING
        end = await stage.told("ended")
        assert (end.exit_code, end.signal, end.killed, end.refused, end.message) == (7, None, False, False, None)
        assert (end.stdout_bytes, end.stderr_bytes) == (6, 5)
        assert end.started_at == end.ended_at == pytest.approx(stage.clock.now(), abs=5)
        await stage.forgotten()
        assert (stage.log("stdout"), stage.log("stderr")) == (b"hello\n", b"oops\n")
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_a_running_task_is_told_at_once(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        running = await stage.told("running")
        assert running.started_at == pytest.approx(stage.clock.now(), abs=5)
        await stage.clock.advance(61)
        assert (await stage.told("ended")).exit_code == 0

    play(tmp_path, script)


def test_the_same_attempt_again_changes_nothing_and_gets_the_same_answer(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        await stage.told("running")
        assert (await stage.execute("sleep", "60")).state is State.RUNNING
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_an_attempt_whose_end_was_confirmed_is_not_run_again_by_a_late_request(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("exit 3")
        await stage.forgotten()
        again = await stage.shell("exit 3")
        assert (again.state, again.exit_code) == (State.ENDED, 3)
        await stage.clock.advance(10)
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_an_older_attempt_than_the_known_one_is_turned_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60", attempt=2)
        with pytest.raises(Conflict, match="attempt 2 of task 1"):
            await stage.execute("sleep", "60", attempt=1)

    play(tmp_path, script)


def test_a_newer_attempt_replaces_the_older_one(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        await stage.told("running")
        await stage.shell("exit 5", attempt=2)
        assert (await stage.told("ended", attempt=2)).exit_code == 5
        await stage.forgotten()
        assert stage.node.executions == {key(): 1, key(attempt=2): 1}
        calls = [call for call in stage.engine.calls if call[0] in ("remove", "create")]
        older_gone = calls.index(("remove", key()))
        assert older_gone < calls.index(("create", key(attempt=2)))

    play(tmp_path, script)


def test_kill_asks_first_and_forces_after_the_grace(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap '' TERM; echo ready; sleep 1000")
        await stage.told("running")
        await stage.kill(grace_seconds=10)
        await stage.until(lambda: ("signal", key()) in stage.engine.calls)
        await stage.clock.advance(9)
        assert stage.node.workloads[key()].exit is None
        await stage.clock.advance(2)
        end = await stage.told("ended")
        assert (end.exit_code, end.signal, end.killed, end.oom_killed) == (137, signal.SIGKILL, True, False)

    play(tmp_path, script)


def test_a_program_that_ends_on_request_is_killed_all_the_same(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap 'echo bye; exit 6' TERM; sleep 1000 & wait")
        await stage.told("running")
        await stage.kill()
        end = await stage.told("ended")
        assert (end.exit_code, end.killed) == (6, True)
        assert stage.log() == b"bye\n"

    play(tmp_path, script)


def test_kill_without_grace_does_not_ask(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap 'exit 6' TERM; sleep 1000 & wait")
        await stage.told("running")
        await stage.kill(grace_seconds=0)
        assert (await stage.told("ended")).exit_code == 137

    play(tmp_path, script)


def test_a_second_kill_can_shorten_the_grace(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap '' TERM; sleep 1000")
        await stage.told("running")
        await stage.kill(grace_seconds=600)
        await stage.kill(grace_seconds=0)
        assert (await stage.told("ended")).exit_code == 137

    play(tmp_path, script)


def test_kill_reaches_a_paused_task(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap 'exit 6' TERM; sleep 1000 & wait")
        await stage.told("running")
        await stage.pause()
        await stage.kill()
        end = await stage.told("ended")
        assert (end.exit_code, end.killed) == (6, True)

    play(tmp_path, script)


def test_a_task_that_ended_by_itself_before_the_kill_was_not_killed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        await stage.told("running")
        stage.engine.faults.events_lost = 1.0
        stage.engine.faults.unreachable = True
        await stage.clock.advance(61)
        stage.engine.faults.unreachable = False
        await stage.clock.advance(0.5)
        await stage.kill()
        end = await stage.told("ended")
        assert (end.exit_code, end.killed) == (0, False)

    play(tmp_path, script)


def test_kill_of_an_unknown_task_and_of_another_attempt(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        with pytest.raises(NotFound):
            await stage.kill(task_id=404)
        await stage.execute("sleep", "60", attempt=2)
        for call in (stage.kill, stage.pause, stage.resume):
            with pytest.raises(Conflict, match="attempt 2"):
                await call(attempt=1)
            with pytest.raises(Conflict, match="attempt 2"):
                await call(attempt=3)

    play(tmp_path, script)


def test_a_killed_task_that_ended_answers_how_it_stands(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.acknowledges = False
        await stage.shell("exit 3")
        await stage.told("ended")
        killed = await stage.kill()
        assert (killed.state, killed.exit_code, killed.killed) == (State.ENDED, 3, False)

    play(tmp_path, script)


def test_pause_and_resume(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        await stage.told("running")
        assert (await stage.pause()).state is State.PAUSED
        await stage.told("paused")
        await stage.clock.advance(100)
        assert (await stage.resume()).state is State.RUNNING
        await stage.told("running")
        await stage.clock.advance(61)
        assert (await stage.told("ended")).exit_code == 0
        await stage.forgotten()
        with pytest.raises(NotFound):
            await stage.pause()

    play(tmp_path, script)


def test_what_does_not_run_cannot_be_paused(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.acknowledges = False
        stage.engine.faults.delay_seconds["ensure_image"] = 60
        await stage.shell("exit 3")
        with pytest.raises(Conflict, match="preparing"):
            await stage.pause()
        await stage.clock.advance(61)
        await stage.told("ended")
        with pytest.raises(Conflict, match="ended"):
            await stage.resume()

    play(tmp_path, script)


def test_a_time_limit_ends_a_task_and_says_so(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "10000", time_limit_seconds=90)
        await stage.told("running")
        await stage.clock.advance(89)
        assert stage.node.workloads[key()].exit is None
        await stage.clock.advance(2)
        end = await stage.told("ended")
        assert (end.timed_out, end.killed, end.signal) == (True, False, signal.SIGTERM)
        assert end.message == "it ran longer than its time limit of 1m30s"

    play(tmp_path, script)


def test_a_time_limit_is_forced_on_who_ignores_it(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap '' TERM; sleep 10000", time_limit_seconds=60)
        await stage.told("running")
        await stage.clock.advance(61)
        await stage.until(lambda: ("signal", key()) in stage.engine.calls)
        await stage.clock.advance(11)
        end = await stage.told("ended")
        assert (end.timed_out, end.exit_code) == (True, 137)

    play(tmp_path, script)


def test_a_stepped_clock_does_not_move_a_time_limit(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "100", time_limit_seconds=200)
        await stage.told("running")
        for hours in (1, -2):
            stage.clock.step_wall(hours * 3600)
            await stage.clock.advance(10)
        await stage.clock.advance(81)
        end = await stage.told("ended")
        assert (end.exit_code, end.timed_out) == (0, False)

    play(tmp_path, script)


def test_a_time_limit_counts_from_the_start_across_a_restart(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "10000", time_limit_seconds=100)
        await stage.told("running")
        await stage.clock.advance(60)
        await stage.stop_runner()
        await stage.clock.advance(30)
        await stage.start_runner(stage.fresh_engine())
        await stage.at_rest()
        await stage.clock.advance(8)
        assert stage.node.workloads[key()].exit is None
        await stage.clock.advance(3)
        assert (await stage.told("ended")).timed_out

    play(tmp_path, script)


def test_out_of_memory_is_told_by_the_engine_alone(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("tail", "/dev/zero", required_memory_bytes=64_000_000)
        end = await stage.told("ended")
        assert (end.exit_code, end.oom_killed, end.killed) == (137, True, False)
        assert end.message == "out of memory (its limit is 64.0M)"
        await stage.shell("exit 137", task_id=2)
        assert not (await stage.told("ended", task_id=2)).oom_killed

    play(tmp_path, script)


def test_many_tasks_at_once_all_end_right(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        for number in range(1, 101):
            await stage.shell(f"echo {number}; exit {number % 7}", task_id=number)
        await stage.until(lambda: len(stage.host.ends) == 100)
        assert {end.task_id: end.exit_code for end in stage.host.ends} == {n: n % 7 for n in range(1, 101)}
        await stage.forgotten()
        assert set(stage.node.executions.values()) == {1}
        assert all(stage.log(task_id=n) == b"%d\n" % n for n in range(1, 101))

    play(tmp_path, script)
