"""The runner dies at any point of an attempt's life; the next one comes to the same truth, and nothing runs twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import EngineFailed, NodeUnreachable
from kohakuriver.model.report import State
from tests.fake_engine import FakeEngine
from tests.runner.crash_points import AFTER, ALL, BEFORE, CrashPoint
from tests.runner.stage import Stage, key, play, request


async def crash_at(stage: Stage, point: CrashPoint, *script: str, **changes: Any) -> None:
    """Ask for a task and let the runner die when its work comes to the point."""
    asking = asyncio.create_task(stage.execute("sh", "-c", *script, **changes))
    await stage.until(point.reached.is_set, pass_seconds=0.05)
    await stage.stop_runner()
    try:
        await asking
    except NodeUnreachable:
        pass  # it died before it could answer


@pytest.mark.parametrize(("when", "place", "name"), ALL)
def test_death_at_any_step_changes_nothing_about_the_end(tmp_path: Path, when: str, place: str, name: str) -> None:
    async def script(stage: Stage) -> None:
        point = CrashPoint(stage, when, place, name)
        await crash_at(stage, point, "echo one; sleep 1; echo two; echo err >&2; exit 7")
        await stage.clock.advance(0.5)
        await stage.start_runner(stage.fresh_engine())
        promised = (when, place, name) != (BEFORE, "store", "accept")
        if not promised:
            await stage.shell("echo one; sleep 1; echo two; echo err >&2; exit 7")
        end = await stage.told("ended", pass_seconds=0.1)
        assert (end.exit_code, end.refused, end.killed) == (7, False, False)
        assert (end.stdout_bytes, end.stderr_bytes) == (8, 4)
        assert (stage.log(), stage.log("stderr")) == (b"one\ntwo\n", b"err\n")
        await stage.forgotten()
        assert stage.node.executions == {key(): 1}
        assert [each.exit_code for each in stage.host.ends] == [7]
        assert not list((stage.directory / "state/started").iterdir())

    play(tmp_path, script)


@pytest.mark.parametrize(("when", "place", "name"), ALL)
def test_death_at_any_step_of_a_task_that_is_killed(tmp_path: Path, when: str, place: str, name: str) -> None:
    async def script(stage: Stage) -> None:
        point = CrashPoint(stage, when, place, name)
        await crash_at(stage, point, "trap 'exit 6' TERM; echo ready; sleep 2 & wait")
        await stage.start_runner(stage.fresh_engine())
        if (when, place, name) == (BEFORE, "store", "accept"):
            await stage.shell("trap 'exit 6' TERM; echo ready; sleep 2 & wait")
        if key() in stage.host.told and stage.host.told[key()].state is State.ENDED:
            return  # it was over before it could be killed
        await stage.kill()
        end = await stage.told("ended", pass_seconds=0.1)
        assert (end.killed, end.exit_code) in ((True, 6), (True, None), (False, 0))
        await stage.forgotten()
        assert stage.node.executions[key()] <= 1

    play(tmp_path, script)


@pytest.mark.parametrize(("when", "name"), [(BEFORE, "signal"), (AFTER, "signal")])
def test_a_kill_goes_on_after_a_restart(tmp_path: Path, when: str, name: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap '' TERM; sleep 1000")
        await stage.told("running")
        point = CrashPoint(stage, when, "engine", name)
        asked_at = stage.clock.now()
        await stage.kill(grace_seconds=10)
        await stage.until(point.reached.is_set)
        await stage.stop_runner()
        await stage.clock.advance(5)
        engine = stage.fresh_engine()
        await stage.start_runner(engine)
        await stage.until(lambda: ("signal", key()) in engine.calls)
        await stage.clock.advance(3)
        assert stage.node.workloads[key()].exit is None, "the grace is not over"
        await stage.clock.advance(3)
        end = await stage.told("ended", pass_seconds=0.1)
        assert (end.exit_code, end.killed) == (137, True)
        assert end.ended_at is not None
        assert 10 <= end.ended_at - asked_at < 13, "the grace did not begin anew"

    play(tmp_path, script)


def test_a_killed_task_that_ended_while_the_runner_was_away_was_killed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap 'exit 6' TERM; sleep 1000 & wait")
        await stage.told("running")
        point = CrashPoint(stage, AFTER, "engine", "signal")
        await stage.kill()
        await stage.until(point.reached.is_set)
        await stage.stop_runner()
        await stage.start_runner(stage.fresh_engine())
        end = await stage.told("ended")
        assert (end.exit_code, end.killed) == (6, True)

    play(tmp_path, script)


def test_a_running_task_is_adopted_and_its_output_is_whole(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo one; sleep 10; echo two; sleep 10; echo three")
        await stage.told("running")
        await stage.stop_runner()
        await stage.clock.advance(11)
        assert stage.log() == b"one\n"
        await stage.start_runner(stage.fresh_engine())
        await stage.until(lambda: stage.log() == b"one\ntwo\n")
        assert stage.host.registers[-1].report.workloads[0].state is State.RUNNING
        await stage.clock.advance(10)
        assert (await stage.told("ended")).exit_code == 0
        assert stage.log() == b"one\ntwo\nthree\n"

    play(tmp_path, script)


def test_a_paused_task_stays_paused_across_a_restart(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "10")
        await stage.told("running")
        await stage.pause()
        await stage.another_runner()
        await stage.at_rest()
        await stage.until(lambda: stage.host.latest()[key()].state is State.PAUSED)
        assert (await stage.resume()).state is State.RUNNING
        await stage.clock.advance(11)
        assert (await stage.told("ended")).exit_code == 0

    play(tmp_path, script)


def test_an_end_that_the_host_never_confirmed_is_told_again_after_a_restart(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.acknowledges = False
        await stage.shell("exit 3")
        await stage.told("ended")
        await stage.until(lambda: not stage.node.workloads)
        stage.host.told.clear()
        await stage.another_runner()
        assert (await stage.told("ended")).exit_code == 3
        assert stage.host.registers[-1].report.workloads[0].exit_code == 3
        stage.host.acknowledges = True
        await stage.until(lambda: not stage.runner.workloads.holds_any, pass_seconds=0.5)
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_a_marked_attempt_that_the_engine_does_not_know_is_not_run_again(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        point = CrashPoint(stage, AFTER, "engine", "start")
        await crash_at(stage, point, "exit 3")
        stage.node.drop_all()  # somebody cleaned up while the runner was away
        await stage.start_runner(stage.fresh_engine())
        end = await stage.told("ended")
        assert (end.exit_code, end.killed, end.refused) == (None, False, False)
        assert end.message == "its container vanished; how it ended is not known"
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_a_container_that_vanishes_is_told_as_what_it_is(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "1000")
        await stage.told("running")
        stage.node.drop_all()
        end = await stage.told("ended", pass_seconds=0.5)
        assert (end.exit_code, end.message) == (None, "its container vanished; how it ended is not known")
        await stage.forgotten()

    play(tmp_path, script)


def test_a_reboot_of_the_machine_ends_what_ran(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "1000")
        await stage.told("running")
        await stage.stop_runner()
        stage.node.reboot()
        await stage.start_runner(stage.fresh_engine())
        end = await stage.told("ended")
        assert (end.exit_code, end.killed) == (137, False)

    play(tmp_path, script)


def test_what_the_engine_has_and_the_store_does_not_know_is_taken_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        from kohakuriver.runner.attempt import Accepted
        from kohakuriver.runner.container_spec import build

        runner = await stage.start_runner()
        stray = Accepted(request("sleep", "1000", task_id=99), tmp_path / "stray", 1000)
        spec = build(stray, runner.bench.site(), ())
        other = FakeEngine(stage.node, "another cluster", "alpha")
        mine = FakeEngine(stage.node, stage.host.cluster_id, "alpha")
        await mine.create(spec)
        await mine.start(spec)
        foreign = build(
            Accepted(request("sleep", "1000", task_id=98), tmp_path / "foreign", 1000), runner.bench.site(), ()
        )
        await other.create(foreign)
        await stage.until(lambda: key(99) not in stage.node.workloads, pass_seconds=0.5)
        assert key(98) in stage.node.workloads

    play(tmp_path, script, runner=False)


def test_of_two_attempts_in_the_store_only_the_newer_goes_on(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "1000")
        await stage.told("running")
        point = CrashPoint(stage, BEFORE, "engine", "remove")
        await stage.shell("exit 5", attempt=2)
        await stage.until(point.reached.is_set)
        await stage.another_runner()
        assert (await stage.told("ended", attempt=2, pass_seconds=0.1)).exit_code == 5
        await stage.forgotten()
        assert stage.node.executions == {key(): 1, key(attempt=2): 1}

    play(tmp_path, script)


def test_who_hangs_up_in_the_middle_of_a_request_does_not_lose_the_task(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        store, kept = stage.runner.store, stage.runner.store.accept
        gate = asyncio.Event()

        async def slow_accept(*arguments: object) -> object:
            known = await kept(*arguments)  # type: ignore[arg-type]
            await gate.wait()
            return known

        store.accept = slow_accept  # type: ignore[method-assign,assignment]
        asking = asyncio.create_task(stage.shell("exit 3"))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        assert (await stage.told("ended")).exit_code == 3

    play(tmp_path, script)


@pytest.mark.parametrize("step", ["ensure_image", "create", "start"])
def test_kill_during_preparation_is_heard(tmp_path: Path, step: str) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds[step] = 60
        await stage.execute("sleep", "1000")
        await stage.until(lambda: step in [name for name, _ in stage.engine.calls])
        await stage.kill()
        if step != "ensure_image":  # an image that comes for an hour is not waited for
            await stage.clock.advance(61)
        end = await stage.told("ended")
        assert end.killed
        assert (end.exit_code is None) == (step != "start")
        await stage.forgotten()

    play(tmp_path, script)


def test_a_kill_during_preparation_survives_a_restart(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["create"] = 60
        await stage.execute("sleep", "1000")
        await stage.until(lambda: ("create", key()) in stage.engine.calls)
        await stage.kill()
        await stage.another_runner()
        end = await stage.told("ended")
        assert (end.killed, end.exit_code, end.message) == (True, None, "killed before it started")
        assert not stage.node.executions

    play(tmp_path, script)


def test_an_error_of_the_engine_that_the_runner_survives(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        away = EngineFailed("the daemon went away", retry_elsewhere=True)
        for step in ("create", "start", "observe", "finish_logs", "remove"):
            stage.engine.faults.before[step] = [away]
            stage.engine.faults.after[step] = [away]
        await stage.shell("echo hello; exit 7")
        end = await stage.told("ended", pass_seconds=0.2)
        assert (end.exit_code, stage.log()) == (7, b"hello\n")
        await stage.forgotten()
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)
