"""The contract of engines, part three: signals, pause and removal."""

import asyncio
import signal

import pytest

from kohakuriver.model.errors import Conflict, NotAllowed, NotFound
from kohakuriver.system.engine import Engine, Exit, Phase, WorkloadKey
from tests.system.engine_rig import (
    Rig,
    exited,
    launch,
    printed,
    ran,
    stdout,
    with_engine,
)


class ControlContract:
    """What may be done to a workload."""

    @with_engine
    async def test_its_files_are_reached_while_it_runs_and_when_it_is_over(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo ready; sleep 30")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        if not rig.has_own_root:
            with pytest.raises(NotAllowed):
                await engine.open_root(spec.key, writable=True)
            return
        with await engine.open_root(spec.key, writable=True) as root:
            root.make_directory("/made/here", parents=True)
        await engine.signal(spec.key, signal.SIGKILL)
        await exited(engine, spec.key)
        with await engine.open_root(spec.key, writable=False) as root:
            assert [entry.name for entry in root.list("/made").entries] == ["here"]
        await engine.remove(spec.key)
        with pytest.raises(NotFound):
            await engine.open_root(spec.key, writable=False)

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

    @with_engine
    async def test_a_paused_workload_stands_still_until_it_is_resumed(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo tick; sleep 0.1; " * 1000)
        await launch(engine, spec)
        await printed(spec, b"tick\n")
        await engine.pause(spec.key)
        await engine.pause(spec.key)
        await asyncio.sleep(0.2)  # for what was on its way
        before = stdout(spec)
        await asyncio.sleep(0.5)
        assert (await engine.observe(spec.key)).phase is Phase.PAUSED
        assert stdout(spec) == before
        await engine.resume(spec.key)
        await engine.resume(spec.key)
        await printed(spec, before + b"tick\n")
        await engine.signal(spec.key, signal.SIGKILL)
        assert (await exited(engine, spec.key)).code == 137

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
