"""What every engine must do: one suite, run on each of them.

To run it on an engine, write in a test module

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def rig(self, tmp_path: Path) -> Iterator[Rig]:
            yield Rig(make=..., directory=tmp_path, image=...)

Commands are in the vocabulary of `tests.fake_shell`, which /bin/sh and busybox speak as well.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.system.engine import ContainerSpec, Engine, Exit, Observed, Phase, WorkloadKey, cut_marker

PATIENCE_SECONDS = 60.0
CLUSTER, NODE = "contract", "alpha"


@dataclass(frozen=True)
class Rig:
    """How the suite gets at one kind of engine.

    `make(cluster, node)` gives an engine object, not yet open, each time over the same machine: two of them are one
    runner before and after its death. Unset `kills_on_memory_limit` where the engine cannot do it.
    """

    make: Callable[[str, str], Engine]
    directory: Path
    image: str = ""
    network: str = ""
    kills_on_memory_limit: bool = True

    def spec(self, *command: str, task_id: int = 1, attempt: int = 1, **changes: Any) -> ContainerSpec:
        """A spec for a command, with its own log directory."""
        settings: dict[str, Any] = {
            "key": WorkloadKey(task_id, attempt),
            "name": f"kohakuriver-task-{task_id}",
            "image": self.image,
            "command": command,
            "log_directory": self.directory / "logs" / f"{task_id}-{attempt}",
            "log_limit_bytes": 10_000_000,
            "network": self.network,
            "labels": {
                "kohakuriver.cluster": CLUSTER,
                "kohakuriver.node": NODE,
                "kohakuriver.task": str(task_id),
                "kohakuriver.attempt": str(attempt),
                "kohakuriver.type": "command",
            },
        }
        return ContainerSpec(**(settings | changes))

    def shell(self, script: str, **changes: Any) -> ContainerSpec:
        """A spec for a script."""
        return self.spec("sh", "-c", script, **changes)


Scenario = Callable[[Any, Rig, Engine], Awaitable[None]]


def with_engine(scenario: Scenario) -> Callable[[Any, Rig], None]:
    """Make a test of `async def test(self, rig, engine)`: the engine is open, and emptied and closed afterwards."""

    async def play(case: Any, rig: Rig) -> None:
        engine = rig.make(CLUSTER, NODE)
        await engine.open()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await scenario(case, rig, engine)
        finally:
            for seen in await engine.observe_all():
                await engine.remove(seen.key)
            await engine.close()

    def test(self: Any, rig: Rig) -> None:
        asyncio.run(play(self, rig))

    test.__name__, test.__doc__ = getattr(scenario, "__name__", "test"), scenario.__doc__
    return test


async def launch(engine: Engine, spec: ContainerSpec) -> None:
    """Create and start."""
    await engine.create(spec)
    await engine.start(spec)


async def exited(engine: Engine, key: WorkloadKey) -> Exit:
    """Wait until the workload has exited; looks rather than trusts events, as a careful runner does now and then."""
    while (seen := await engine.observe(key)).phase is not Phase.EXITED:
        await asyncio.sleep(0.01)
    assert seen.exit is not None
    return seen.exit


async def ran(engine: Engine, spec: ContainerSpec) -> Exit:
    """Create, start, wait for the end and for the whole output."""
    await launch(engine, spec)
    end = await exited(engine, spec.key)
    await engine.finish_logs(spec)
    return end


async def printed(spec: ContainerSpec, text: bytes) -> None:
    """Wait until stdout holds the text, while the workload may still run."""
    while text not in stdout(spec):
        await asyncio.sleep(0.01)


def stdout(spec: ContainerSpec) -> bytes:
    """What the log file holds now."""
    return _read(spec.log_directory / "stdout")


def stderr(spec: ContainerSpec) -> bytes:
    """What the log file holds now."""
    return _read(spec.log_directory / "stderr")


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def by_key(seen: list[Observed]) -> dict[WorkloadKey, Observed]:
    """Looks, by whom they show."""
    assert len({each.key for each in seen}) == len(seen)
    return {each.key: each for each in seen}


class EngineContract:
    """Inherit it and give a `rig`."""

    # ---- life and end

    @with_engine
    async def test_a_created_workload_waits_to_be_started(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("echo", "hello")
        await engine.create(spec)
        await asyncio.sleep(0.1)
        seen = await engine.observe(spec.key)
        assert (seen.phase, seen.exit, seen.started_at) == (Phase.CREATED, None, None)
        assert stdout(spec) == b""

    @with_engine
    async def test_creating_twice_makes_one_workload(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("echo", "hello")
        await engine.create(spec)
        await engine.create(spec)
        assert [seen.key for seen in await engine.observe_all()] == [spec.key]

    @with_engine
    async def test_creating_again_does_not_disturb_a_running_workload(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo begun; sleep 0.3; echo done; exit 3")
        await launch(engine, spec)
        await engine.create(spec)
        assert (await exited(engine, spec.key)).code == 3
        await engine.finish_logs(spec)
        assert stdout(spec) == b"begun\ndone\n"

    @with_engine
    async def test_a_running_workload_is_seen_running_since_a_moment_in_utc(self, rig: Rig, engine: Engine) -> None:
        spec, before = rig.spec("sleep", "30"), time.time()
        await launch(engine, spec)
        seen = await engine.observe(spec.key)
        assert (seen.phase, seen.exit, seen.finished_at) == (Phase.RUNNING, None, None)
        assert seen.started_at is not None
        assert before - 1 <= seen.started_at <= time.time() + 1

    @with_engine
    async def test_an_ended_workload_tells_when_it_began_and_ended(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "0.2")
        await ran(engine, spec)
        seen = await engine.observe(spec.key)
        assert seen.started_at is not None
        assert seen.finished_at is not None
        assert 0.1 <= seen.finished_at - seen.started_at <= 30

    @with_engine
    async def test_exit_codes_come_out_as_the_program_gave_them(self, rig: Rig, engine: Engine) -> None:
        for number, code in enumerate((0, 1, 77, 137, 255), start=1):
            end = await ran(engine, rig.shell(f"exit {code}", task_id=number))
            assert end == Exit(code), "an exit code above 128 is no signal, and 137 alone is no OOM kill"

    @with_engine
    async def test_starting_twice_runs_it_once(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo once; sleep 0.2")
        await launch(engine, spec)
        await engine.start(spec)
        await exited(engine, spec.key)
        await engine.start(spec)
        await asyncio.sleep(0.2)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"once\n"
        assert (await engine.observe(spec.key)).phase is Phase.EXITED

    @with_engine
    async def test_a_missing_program_is_told_in_one_line_and_runs_nowhere_else(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("no-such-program", "x")
        await engine.create(spec)
        with pytest.raises(EngineFailed) as caught:
            await engine.start(spec)
        assert not caught.value.retry_elsewhere
        assert "no-such-program" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (await engine.observe(spec.key)).phase is not Phase.RUNNING
        await engine.remove(spec.key)

    @with_engine
    async def test_what_the_main_process_leaves_behind_ends_with_it(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("sleep 1000 & exit 4")
        assert (await ran(engine, spec)).code == 4

    @with_engine
    async def test_many_run_at_once_and_none_is_taken_for_another(self, rig: Rig, engine: Engine) -> None:
        specs = [rig.shell(f"echo {n}; sleep 0.1; exit {n}", task_id=n) for n in range(1, 13)]
        ends = await asyncio.gather(*(ran(engine, spec) for spec in specs))
        assert [end.code for end in ends] == list(range(1, 13))
        assert [stdout(spec) for spec in specs] == [b"%d\n" % n for n in range(1, 13)]

    @with_engine
    async def test_nothing_can_be_read_from_stdin(self, rig: Rig, engine: Engine) -> None:
        assert (await ran(engine, rig.spec("cat"))).code == 0

    # ---- what the program is given

    @with_engine
    async def test_arguments_arrive_exactly(self, rig: Rig, engine: Engine) -> None:
        arguments = ("a b", "", "$HOME", "'", '"', "two\nlines", "*", "\\n", "ünï ☃", "-x")
        spec = rig.spec("sh", "-c", "printf '%s|' \"$@\"", "name", *arguments)
        await ran(engine, spec)
        assert stdout(spec).decode() == "".join(f"{word}|" for word in arguments)

    @with_engine
    async def test_the_environment_arrives_exactly(self, rig: Rig, engine: Engine) -> None:
        env = {"PLAIN": "1", "QUOTES": "'\"$PLAIN`", "LINES": "a\nb", "EMPTY": "", "SNOW": "☃", "EQUALS": "a=b=c"}
        script = "printf '%s|' " + " ".join(f'"${name}"' for name in env)
        spec = rig.shell(script, env=env)
        await ran(engine, spec)
        assert stdout(spec).decode() == "".join(f"{value}|" for value in env.values())

    @with_engine
    async def test_it_begins_in_its_working_directory(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("pwd", working_dir="/tmp")
        await ran(engine, spec)
        assert stdout(spec) == b"/tmp\n"

    # ---- output

    @with_engine
    async def test_stdout_and_stderr_stay_apart(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo out; echo err >&2; printf 'no newline'")
        await ran(engine, spec)
        assert (stdout(spec), stderr(spec)) == (b"out\nno newline", b"err\n")

    @with_engine
    async def test_a_silent_workload_leaves_two_empty_files(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true")
        await ran(engine, spec)
        assert {path.name: path.read_bytes() for path in spec.log_directory.iterdir()} == {"stdout": b"", "stderr": b""}

    @with_engine
    async def test_every_byte_value_survives(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("printf '" + "".join(f"\\{n:03o}" for n in range(256)) + "'")
        await ran(engine, spec)
        assert stdout(spec) == bytes(range(256))

    @with_engine
    async def test_output_can_be_read_while_it_runs(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo early; sleep 30; echo late")
        await launch(engine, spec)
        await printed(spec, b"early\n")
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING

    @with_engine
    async def test_a_megabyte_is_whole(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo begin; head -c 1000000 /dev/zero; echo end")
        await ran(engine, spec)
        assert stdout(spec) == b"begin\n" + bytes(1_000_000) + b"end\n"

    @with_engine
    async def test_output_over_the_limit_is_cut_with_a_marker_and_does_not_hold_it_up(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("head -c 300000 /dev/zero; echo problem >&2; exit 5", log_limit_bytes=1000)
        assert (await ran(engine, spec)).code == 5
        assert stdout(spec) == bytes(1000) + cut_marker(1000)
        assert stderr(spec) == b"problem\n"

    @with_engine
    async def test_output_of_exactly_the_limit_is_not_marked(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("head -c 1000 /dev/zero", log_limit_bytes=1000)
        await ran(engine, spec)
        assert stdout(spec) == bytes(1000)

    @with_engine
    async def test_finishing_the_logs_twice_changes_nothing(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("echo", "hello")
        await ran(engine, spec)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"hello\n"

    # ---- signals

    @with_engine
    async def test_a_term_signal_ends_it(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30")
        await launch(engine, spec)
        await engine.signal(spec.key, signal.SIGTERM)
        end = await exited(engine, spec.key)
        assert end in (Exit(143, signal.SIGTERM), Exit(143)), "where an init stands between, the number may be lost"

    @with_engine
    async def test_a_program_can_answer_the_term_signal(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("trap 'echo bye; exit 6' TERM; echo ready; sleep 30 & wait")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        await engine.signal(spec.key, signal.SIGTERM)
        assert await exited(engine, spec.key) == Exit(6)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"ready\nbye\n"

    @with_engine
    async def test_a_program_that_ignores_term_dies_of_kill(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("trap '' TERM; echo ready; sleep 30")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        await engine.signal(spec.key, signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING
        await engine.signal(spec.key, signal.SIGKILL)
        end = await exited(engine, spec.key)
        assert (end.code, end.oom_killed) == (137, False)

    @with_engine
    async def test_a_signal_after_the_end_does_nothing(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("exit 2")
        await ran(engine, spec)
        await engine.signal(spec.key, signal.SIGKILL)
        assert await exited(engine, spec.key) == Exit(2)

    # ---- pause

    @with_engine
    async def test_a_paused_workload_stands_still_until_it_is_resumed(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo ready; sleep 0.3; echo done")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        await engine.pause(spec.key)
        await engine.pause(spec.key)
        await asyncio.sleep(0.6)
        assert (await engine.observe(spec.key)).phase is Phase.PAUSED
        assert stdout(spec) == b"ready\n"
        await engine.resume(spec.key)
        await engine.resume(spec.key)
        assert await exited(engine, spec.key) == Exit(0)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"ready\ndone\n"

    @with_engine
    async def test_a_resumed_workload_is_seen_running(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30")
        await launch(engine, spec)
        await engine.pause(spec.key)
        await engine.resume(spec.key)
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING

    @with_engine
    async def test_kill_reaches_a_paused_workload(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30")
        await launch(engine, spec)
        await engine.pause(spec.key)
        await engine.signal(spec.key, signal.SIGKILL)
        assert (await exited(engine, spec.key)).code == 137

    @with_engine
    async def test_an_ended_workload_can_be_neither_paused_nor_resumed(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true")
        await ran(engine, spec)
        with pytest.raises(Conflict):
            await engine.pause(spec.key)
        with pytest.raises(Conflict):
            await engine.resume(spec.key)

    # ---- removal

    @with_engine
    async def test_remove_ends_what_runs_and_leaves_the_log_files(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo begun; sleep 30")
        await launch(engine, spec)
        await printed(spec, b"begun\n")
        await engine.remove(spec.key)
        with pytest.raises(NotFound):
            await engine.observe(spec.key)
        assert await engine.observe_all() == []
        assert stdout(spec) == b"begun\n"

    @with_engine
    async def test_remove_takes_created_paused_and_ended_workloads_too(self, rig: Rig, engine: Engine) -> None:
        created, paused, ended = (rig.spec("sleep", word, task_id=n) for n, word in enumerate(("30", "30", "0"), 1))
        await engine.create(created)
        await launch(engine, paused)
        await engine.pause(paused.key)
        await ran(engine, ended)
        for spec in (created, paused, ended):
            await engine.remove(spec.key)
        assert await engine.observe_all() == []

    @with_engine
    async def test_removing_what_is_not_there_does_nothing(self, rig: Rig, engine: Engine) -> None:
        await engine.remove(WorkloadKey(404, 1))
        spec = rig.spec("true")
        await ran(engine, spec)
        await engine.remove(spec.key)
        await engine.remove(spec.key)

    @with_engine
    async def test_an_unknown_key_is_not_found(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true", task_id=404)
        for call in (
            engine.start(spec),
            engine.adopt(spec),
            engine.observe(spec.key),
            engine.signal(spec.key, signal.SIGTERM),
            engine.pause(spec.key),
            engine.resume(spec.key),
        ):
            with pytest.raises(NotFound):
                await call

    @with_engine
    async def test_a_newer_attempt_takes_the_place_of_the_older(self, rig: Rig, engine: Engine) -> None:
        older, newer = rig.spec("sleep", "30"), rig.spec("sleep", "30", attempt=2)
        await launch(engine, older)
        await launch(engine, newer)
        assert [seen.key for seen in await engine.observe_all()] == [newer.key]
        with pytest.raises(NotFound):
            await engine.observe(older.key)

    # ---- looking and listening

    @with_engine
    async def test_all_of_ours_are_seen_whatever_their_state(self, rig: Rig, engine: Engine) -> None:
        created, running, paused = (rig.spec("sleep", "30", task_id=number) for number in (1, 2, 3))
        ended = rig.shell("exit 9", task_id=4)
        await engine.create(created)
        await launch(engine, running)
        await launch(engine, paused)
        await engine.pause(paused.key)
        await ran(engine, ended)
        seen = by_key(await engine.observe_all())
        assert {key.task_id: each.phase for key, each in seen.items()} == {
            1: Phase.CREATED,
            2: Phase.RUNNING,
            3: Phase.PAUSED,
            4: Phase.EXITED,
        }
        assert seen[ended.key].exit == Exit(9)

    @with_engine
    async def test_workloads_of_another_cluster_or_node_are_not_ours(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30")
        await launch(engine, spec)
        for owner in (("another-cluster", NODE), (CLUSTER, "beta")):
            stranger = rig.make(*owner)
            await stranger.open()
            try:
                assert await stranger.observe_all() == []
                with pytest.raises(NotFound):
                    await stranger.observe(spec.key)
                await stranger.remove(spec.key)
            finally:
                await stranger.close()
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING

    @with_engine
    async def test_an_end_is_told(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "0.3")
        await launch(engine, spec)
        async for key in engine.events():
            if key == spec.key and (await engine.observe(key)).phase is Phase.EXITED:
                break

    @with_engine
    async def test_an_end_is_told_to_who_begins_to_listen_after_it(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true")
        await ran(engine, spec)
        assert await anext(engine.events()) == spec.key

    @with_engine
    async def test_listening_ends_when_the_engine_closes(self, rig: Rig, engine: Engine) -> None:
        second = rig.make(CLUSTER, NODE)
        await second.open()

        async def listen() -> None:
            async for _ in second.events():
                pass

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.05)
        await second.close()
        await listening

    # ---- the runner goes and comes back

    @with_engine
    async def test_workloads_outlive_the_runner_and_are_adopted_with_all_their_output(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("echo one; sleep 0.5; echo two; sleep 0.5; echo three; exit 7")
        first = rig.make(CLUSTER, NODE)
        await first.open()
        await launch(first, spec)
        await printed(spec, b"one\n")
        await first.close()
        await engine.adopt(spec)
        await engine.adopt(spec)
        assert await exited(engine, spec.key) == Exit(7)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"one\ntwo\nthree\n"

    @with_engine
    async def test_an_end_while_the_runner_is_away_is_known_afterwards(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo one; sleep 0.3; echo two; exit 7")
        first = rig.make(CLUSTER, NODE)
        await first.open()
        await launch(first, spec)
        await first.close()
        await asyncio.sleep(0.6)
        await engine.adopt(spec)
        assert await exited(engine, spec.key) == Exit(7)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"one\ntwo\n"

    @with_engine
    async def test_a_workload_created_before_the_runner_went_can_be_started_afterwards(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("echo hello; exit 8")
        first = rig.make(CLUSTER, NODE)
        await first.open()
        await first.create(spec)
        await first.close()
        await engine.create(spec)
        await engine.start(spec)
        assert await exited(engine, spec.key) == Exit(8)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"hello\n"

    @with_engine
    async def test_an_ended_workload_does_not_run_again_for_a_runner_that_forgot(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("echo hello; exit 8")
        first = rig.make(CLUSTER, NODE)
        await first.open()
        await ran(first, spec)
        await first.close()
        await engine.create(spec)
        await engine.start(spec)
        assert await exited(engine, spec.key) == Exit(8)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"hello\n"

    # ---- limits

    @with_engine
    async def test_too_much_memory_is_told_apart_from_a_kill(self, rig: Rig, engine: Engine) -> None:
        end = await ran(engine, rig.spec("tail", "/dev/zero", memory_bytes=64_000_000))
        if rig.kills_on_memory_limit:
            assert (end.code, end.oom_killed) == (137, True)
        else:
            assert end.code != 0
            assert not end.oom_killed, "it was refused memory, and ended by itself"

    @with_engine
    async def test_a_workload_is_pinned_to_its_cores(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("nproc", cpu_ids=(0,))
        await ran(engine, spec)
        assert stdout(spec) == b"1\n"

    @with_engine
    async def test_it_says_what_it_is(self, rig: Rig, engine: Engine) -> None:
        info = await engine.describe()
        assert info.name
        assert info.version
        assert info.limits_memory == rig.kills_on_memory_limit

    @with_engine
    async def test_the_event_loop_is_never_held_up(self, rig: Rig, engine: Engine) -> None:
        worst_seconds = []
        for first in (1, 11, 21):  # a crowded machine may take the processor away once; a blocking call blocks always
            specs = [rig.shell("head -c 100000 /dev/zero; sleep 0.1", task_id=first + n) for n in range(8)]
            worst_seconds.append(await longest_stall(_lives(engine, specs)))
        assert min(worst_seconds) < 0.05, f"the loop stood still for {worst_seconds} s"


async def _lives(engine: Engine, specs: list[ContainerSpec]) -> None:
    await asyncio.gather(*(ran(engine, spec) for spec in specs))
    await engine.observe_all()
    for spec in specs:
        await engine.remove(spec.key)


async def longest_stall(work: Coroutine[Any, Any, None]) -> float:
    """Do the work; return the longest time in seconds for which the event loop did not come round meanwhile."""
    doing, worst_seconds = asyncio.create_task(work), 0.0
    while not doing.done():
        before = time.monotonic()
        await asyncio.sleep(0.002)
        worst_seconds = max(worst_seconds, time.monotonic() - before - 0.002)
    await doing
    return worst_seconds
