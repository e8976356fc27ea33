"""The runner and its host: joining, reports at once and complete, heartbeats, a host that is away or forgets."""

from pathlib import Path

from kohakuriver import __version__
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotLoggedIn, Unavailable
from kohakuriver.model.report import Acknowledged, AttemptRef, State
from tests.runner.stage import NODE, Stage, key, play


def test_it_introduces_itself_with_all_that_the_host_must_know(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (register,) = stage.host.registers
        assert (register.hostname, register.url, register.version) == (NODE, stage.runner.url, __version__)
        assert (register.engine, register.engine_version) == ("fake", "1")
        assert (register.machine.cores, len(register.machine.gpus)) == (64, 8)
        assert abs(register.clock - stage.clock.now()) < 5
        assert register.report.workloads == []
        assert register.warnings == []

    play(tmp_path, script)


def test_heartbeats_come_at_the_pace_that_the_host_gave(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.heartbeat_interval_seconds = 2.0
        await stage.start_runner(resource_check_interval_seconds=1.0)
        await stage.at_rest()
        for _ in range(60):
            await stage.clock.advance(0.5)
            await stage.until(lambda: not stage.runner.bench.changed.is_set())
        assert 12 <= len(stage.host.heartbeats) <= 16
        beat = stage.host.heartbeats[-1]
        assert beat.metrics.cpu_percent == 12.5
        assert [sample.cpu_percent for sample in beat.samples] in ([12.5] * 2, [12.5] * 3)
        seconds = [sample.at for each in stage.host.heartbeats for sample in each.samples]
        assert seconds == sorted(set(seconds)), "every second is told once"

    play(tmp_path, script, runner=False)


def test_a_host_that_comes_later_is_found(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.stop_host()
        await stage.start_runner()
        await stage.clock.advance(60)
        assert not stage.runner.link.joined
        await stage.resume_host()
        await stage.until(lambda: stage.runner.link.joined, pass_seconds=0.1)

    play(tmp_path, script, runner=False)


def test_ends_wait_for_a_host_that_is_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("sleep 5; exit 7")
        await stage.told("running")
        await stage.stop_host()
        await stage.clock.advance(10)
        await stage.until(lambda: not stage.node.workloads, pass_seconds=0.1)
        await stage.resume_host()
        assert (await stage.told("ended", pass_seconds=0.1)).exit_code == 7
        await stage.forgotten()

    play(tmp_path, script)


def test_a_lost_confirmation_is_asked_for_again(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.acknowledges = False
        await stage.shell("exit 7")
        await stage.told("ended")
        reports = len(stage.host.reports)
        await stage.until(lambda: len(stage.host.reports) >= reports + 3, pass_seconds=0.5)
        assert all(report.workloads[0].exit_code == 7 for report in stage.host.reports[-3:])
        stage.host.acknowledges = True
        await stage.until(lambda: not stage.runner.workloads.holds_any, pass_seconds=0.5)
        await stage.until(lambda: not stage.host.reports[-1].workloads, pass_seconds=0.5)

    play(tmp_path, script)


def test_every_report_is_complete_and_numbered_and_of_one_life(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        for number in range(1, 6):
            await stage.execute("sleep", "60", task_id=number)
        await stage.until(lambda: len(stage.host.latest()) == 5)
        await stage.until(lambda: {s.state for s in stage.host.latest().values()} == {State.RUNNING})
        await stage.shell("exit 1", task_id=6)
        await stage.told("ended", task_id=6)
        assert len(stage.host.latest()) == 6, "a change is told together with all that did not change"
        numbers = [report.sequence for report in stage.host.reports]
        assert numbers == sorted(set(numbers))
        assert len({report.instance for report in stage.host.reports}) == 1
        first_life = stage.host.reports[0].instance
        await stage.another_runner()
        await stage.at_rest()
        assert stage.host.reports[-1].instance != first_life

    play(tmp_path, script)


def test_a_host_that_forgot_the_node_is_introduced_to_it_again(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "60")
        await stage.told("running")
        stage.host.knows = False
        await stage.until(lambda: len(stage.host.registers) == 2, pass_seconds=0.5)
        assert stage.host.registers[1].report.workloads[0].state is State.RUNNING

    play(tmp_path, script)


def test_a_host_that_is_ill_is_asked_again_but_not_hammered(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.error = Unavailable("the store cannot be written")
        await stage.shell("exit 7")
        before = stage.runner.link._sequence
        await stage.clock.advance(60)
        after = stage.runner.link._sequence
        assert after - before < 60
        stage.host.error = None
        assert (await stage.told("ended", pass_seconds=0.1)).exit_code == 7

    play(tmp_path, script)


def test_a_wrong_secret_is_no_reason_to_end(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.error = NotLoggedIn("the signature is wrong")
        await stage.start_runner()
        await stage.clock.advance(30)
        stage.host.error = None
        await stage.until(lambda: stage.runner.link.joined, pass_seconds=0.1)

    play(tmp_path, script, runner=False)


def test_a_fenced_attempt_is_ended_removed_and_forgotten(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("trap '' TERM; echo begun; sleep 1000")
        await stage.told("running")
        stage.host.fences = [AttemptRef(Snowflake(1), 1)]
        await stage.until(lambda: not stage.node.workloads, pass_seconds=0.5)
        await stage.forgotten()
        assert stage.host.ends == []
        assert stage.log() == b"begun\n"

    play(tmp_path, script)


def test_a_confirmation_of_an_end_that_was_not_told_is_not_believed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("sleep 5; exit 7")
        await stage.told("running")
        stage.runner.workloads.take(Acknowledged(ended=[AttemptRef(Snowflake(1), 1)]))
        assert (await stage.told("ended", pass_seconds=0.1)).exit_code == 7

    play(tmp_path, script)


def test_an_attempt_is_fenced_while_it_prepares(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["ensure_image"] = 10**6
        stage.host.fences = [AttemptRef(Snowflake(1), 1)]
        await stage.execute("sleep", "1000")
        await stage.forgotten()
        assert stage.host.ends == []
        assert not stage.node.executions

    play(tmp_path, script)


def test_a_fence_while_the_engine_is_away_comes_true_later(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "1000")
        await stage.told("running")
        stage.engine.faults.unreachable = True
        stage.host.fences = [AttemptRef(Snowflake(1), 1)]
        await stage.clock.advance(20)
        assert stage.node.workloads
        stage.engine.faults.unreachable = False
        await stage.forgotten()

    play(tmp_path, script)


def test_sizes_of_running_outputs_come_with_heartbeats(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo hello; echo problem >&2; sleep 1000")
        await stage.until(lambda: key() in stage.host.told and stage.host.told[key()].stdout_bytes, pass_seconds=0.5)
        state = stage.host.told[key()]
        assert (state.stdout_bytes, state.stderr_bytes) == (6, 8)

    play(tmp_path, script)


def test_a_burst_of_changes_makes_few_reports(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        before = len(stage.host.reports)
        for number in range(1, 201):
            await stage.execute("true", task_id=number)
        await stage.until(lambda: len(stage.host.ends) == 200)
        assert len(stage.host.reports) - before < 600, "changes gather while a report is under way"
        await stage.forgotten()

    play(tmp_path, script)
