"""The contract of engines, part four: looking, listening, and coming back after a crash."""

import asyncio

import pytest

from kohakuriver.model.errors import NotFound
from kohakuriver.system.engine import Engine, Exit, Phase
from tests.system.engine_rig import (
    CLUSTER,
    NODE,
    Rig,
    by_key,
    exited,
    launch,
    printed,
    ran,
    stdout,
    with_engine,
)


class WatchingContract:
    """What an engine tells, and what the next runner finds."""

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
