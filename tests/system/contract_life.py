"""The contract of engines, part one: how a workload begins, what it is given, and how it ends."""

import asyncio
import time

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.engine import ContainerSpec, Engine, Exit, Phase
from tests.system.engine_rig import (
    Rig,
    exited,
    launch,
    longest_stall,
    ran,
    stdout,
    with_engine,
)


class LifeContract:
    """Create, start, exit codes, arguments, environment, limits."""

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
        worst_seconds: list[float] = []
        # A crowded machine takes the processor away now and then; a call that blocks does so always.
        for first in range(1, 100, 10):
            specs = [rig.shell("head -c 100000 /dev/zero; sleep 0.1", task_id=first + n) for n in range(8)]
            worst_seconds.append(await longest_stall(_lives(engine, specs)))
            if worst_seconds[-1] < 0.05:
                return
        pytest.fail(f"the loop stood still for {worst_seconds} s")


async def _lives(engine: Engine, specs: list[ContainerSpec]) -> None:
    await asyncio.gather(*(ran(engine, spec) for spec in specs))
    await engine.observe_all()
    for spec in specs:
        await engine.remove(spec.key)
