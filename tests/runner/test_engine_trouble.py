"""The engine is away, refuses, loses or doubles its events: states are kept, and only true ends are told."""

from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.report import State
from kohakuriver.system.engine import Observed
from tests.runner.stage import Stage, key, play


@pytest.mark.parametrize(("lost", "doubled"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_events_may_be_lost_or_doubled(tmp_path: Path, lost: float, doubled: float) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.events_lost, stage.engine.faults.events_doubled = lost, doubled
        for number in range(1, 11):
            await stage.shell(f"echo {number}; sleep 1; exit {number}", task_id=number)
        await stage.until(lambda: len(stage.host.ends) == 10, pass_seconds=0.1)
        assert {end.task_id: end.exit_code for end in stage.host.ends} == {n: n for n in range(1, 11)}
        await stage.forgotten()
        assert set(stage.node.executions.values()) == {1}

    play(tmp_path, script)


def test_an_engine_that_is_away_changes_no_state_and_its_return_tells_the_truth(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("sleep 30; exit 7")
        await stage.shell("sleep 3000", task_id=2)
        await stage.told("running")
        await stage.told("running", task_id=2)
        stage.engine.faults.unreachable = True
        await stage.clock.advance(60)
        await stage.until(lambda: stage.host.heartbeats[-1].warnings, pass_seconds=0.5)
        assert "does not answer" in stage.host.heartbeats[-1].warnings[0]
        assert [state.state for state in stage.host.latest().values()] == [State.RUNNING, State.RUNNING]
        stage.engine.faults.unreachable = False
        assert (await stage.told("ended", pass_seconds=0.5)).exit_code == 7
        assert stage.host.told[key(2)].state is State.RUNNING
        await stage.until(lambda: not stage.host.heartbeats[-1].warnings, pass_seconds=0.5)

    play(tmp_path, script)


def test_a_kill_while_the_engine_is_away_comes_true_later(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "3000")
        await stage.told("running")
        stage.engine.faults.unreachable = True
        await stage.kill()
        await stage.clock.advance(20)
        assert stage.host.told[key()].state is State.RUNNING
        stage.engine.faults.unreachable = False
        assert (await stage.told("ended", pass_seconds=0.5)).killed

    play(tmp_path, script)


def test_a_new_task_is_turned_away_while_the_engine_is_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.unreachable = True
        await stage.until(lambda: stage.runner.workloads.trouble, pass_seconds=0.5)
        with pytest.raises(EngineFailed) as caught:
            await stage.execute("true")
        assert caught.value.retry_elsewhere
        stage.engine.faults.unreachable = False
        await stage.until(lambda: not stage.runner.workloads.trouble, pass_seconds=0.5)
        await stage.execute("true")
        await stage.told("ended")

    play(tmp_path, script)


def test_a_runner_whose_engine_comes_later_joins_with_a_warning_and_then_works(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.unreachable = True
        await stage.start_runner()
        await stage.at_rest()
        assert stage.host.registers[0].warnings
        assert stage.host.registers[0].engine_version == ""
        stage.engine.faults.unreachable = False
        await stage.until(lambda: len(stage.host.registers) > 1, pass_seconds=0.1)
        assert stage.host.registers[-1].engine == "fake"
        await stage.execute("true")
        await stage.told("ended")

    play(tmp_path, script, runner=False)


def test_a_task_promised_before_a_restart_waits_for_the_engine(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("sleep 5; exit 7")
        await stage.told("running")
        await stage.stop_runner()
        engine = stage.fresh_engine()
        engine.faults.unreachable = True
        await stage.start_runner(engine)
        await stage.at_rest()
        assert stage.host.registers[-1].report.workloads[0].state is State.RUNNING, "its mark says that it ran"
        await stage.clock.advance(10)
        assert stage.host.told[key()].state is State.RUNNING
        engine.faults.unreachable = False
        assert (await stage.told("ended", pass_seconds=0.1)).exit_code == 7

    play(tmp_path, script)


def test_a_missing_image_is_refused_everywhere(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.missing_images = {"nobody/has:this"}
        await stage.execute("true", registry_image="nobody/has:this")
        end = await stage.told("ended")
        assert (end.refused, end.retry_elsewhere, end.exit_code) == (True, False, None)
        assert "nobody/has:this" in (end.message or "")
        await stage.forgotten()
        assert not list((tmp_path / "state/logs").iterdir()), "nothing is left of what never ran"

    play(tmp_path, script)


def test_a_missing_program_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("no-such-program")
        end = await stage.told("ended")
        assert (end.refused, end.retry_elsewhere) == (True, False)
        await stage.forgotten()
        assert not list((tmp_path / "state/started").iterdir())
        assert not list((tmp_path / "state/logs").iterdir())

    play(tmp_path, script)


def test_an_engine_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["ensure_image"] = 5
        await stage.execute("true")
        await stage.until(lambda: ("ensure_image", None) in stage.engine.calls)
        stage.engine.faults.unreachable = True
        await stage.clock.advance(6)
        await stage.until(
            lambda: (
                key() in stage.host.told and (stage.host.told[key()].message or "").startswith("waits for the engine: ")
            )
        )
        assert stage.host.told[key()].state is State.PREPARING
        await stage.clock.advance(3)
        stage.engine.faults.unreachable = False
        end = await stage.told("ended", pass_seconds=0.1)
        assert (end.exit_code, end.message) == (0, None)

    play(tmp_path, script)


def test_an_engine_that_stays_away_sends_the_task_elsewhere(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["ensure_image"] = 1
        await stage.execute("true")
        await stage.until(lambda: ("ensure_image", None) in stage.engine.calls)
        stage.engine.faults.unreachable = True
        end = await stage.told("ended", pass_seconds=0.5)
        assert (end.refused, end.retry_elsewhere) == (True, True)
        assert end.message == "the fake engine does not answer"

    play(tmp_path, script)


@pytest.mark.parametrize(("step", "tries"), [("ensure_image", 1), ("create", 3)])
def test_what_an_engine_that_is_well_cannot_do_is_soon_sent_elsewhere(tmp_path: Path, step: str, tries: int) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.before[step] = [EngineFailed("disk full", retry_elsewhere=True)] * 100
        await stage.execute("true")
        end = await stage.told("ended", pass_seconds=0.1)
        assert (end.refused, end.retry_elsewhere, end.message) == (True, True, "disk full")
        assert [name for name, _ in stage.engine.calls].count(step) == tries

    play(tmp_path, script)


def test_a_refusal_is_not_told_before_it_is_certain_that_nothing_runs(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        away = EngineFailed("no answer", retry_elsewhere=True)
        stage.engine.faults.after["start"] = [away] * 100
        stage.engine.faults.before["observe"] = [away] * 5
        await stage.execute("sleep", "60")
        running = await stage.told("running", pass_seconds=0.5)
        assert not running.refused
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_logs_that_cannot_be_completed_are_said_to_be_incomplete(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.before["finish_logs"] = [EngineFailed("disk full")] * 100
        await stage.shell("echo hello; exit 7")
        end = await stage.told("ended", pass_seconds=1.0)
        assert (end.exit_code, end.message) == (7, "its output is not complete: disk full")

    play(tmp_path, script)


def test_an_image_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.stop_runner()
        stage.fresh_engine().faults.delay_seconds["ensure_image"] = 10**6
        await stage.start_runner(docker_image_sync_timeout=0.05)
        await stage.at_rest()
        await stage.execute("true")
        end = await stage.told("ended", pass_seconds=1.0)
        assert (end.refused, end.retry_elsewhere) == (True, True)
        assert "took longer than 0.05 s" in (end.message or "")

    play(tmp_path, script)


def test_starts_are_bounded(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["start"] = 100
        for number in range(1, 31):
            await stage.execute("true", task_id=number)
        await stage.until(lambda: [name for name, _ in stage.engine.calls].count("start") == 12)
        await stage.clock.advance(50)
        assert [name for name, _ in stage.engine.calls].count("start") == 12
        stage.engine.faults.delay_seconds.clear()
        await stage.clock.advance(51)
        await stage.until(lambda: len(stage.host.ends) == 30)

    play(tmp_path, script)


def test_what_ends_and_goes_during_a_slow_look_is_no_leftover(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        look = stage.engine.observe_all

        async def slow_look() -> list[Observed]:
            seen = await look()
            await stage.clock.sleep(10)
            return seen

        stage.engine.observe_all = slow_look  # type: ignore[method-assign]
        await stage.execute("sleep", "5")
        await stage.told("running")
        await stage.told("ended", pass_seconds=0.1)
        await stage.forgotten()
        await stage.clock.advance(20)
        assert stage.engine.calls.count(("remove", key())) == 1

    play(tmp_path, script)
