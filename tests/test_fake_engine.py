"""The fake engine's illnesses and its speed; that it is true otherwise, the contract suite says."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.engine import ContainerSpec, Exit, Phase, WorkloadKey
from tests.fake_engine import FakeEngine, FakeNode
from tests.manual_clock import ManualClock


def spec(directory: Path, *command: str, task_id: int = 1) -> ContainerSpec:
    return ContainerSpec(
        key=WorkloadKey(task_id, 1),
        name=f"task-{task_id}",
        image="",
        command=command,
        log_directory=directory / str(task_id),
        log_limit_bytes=1000,
    )


def play(script: Callable[[FakeNode, FakeEngine, ManualClock], Awaitable[None]]) -> None:
    async def whole() -> None:
        clock = ManualClock()
        node = FakeNode(clock=clock)
        engine = FakeEngine(node)
        await engine.open()
        await script(node, engine, clock)
        node.drop_all()

    asyncio.run(whole())


def test_an_hour_passes_when_the_clock_says_so(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        hour = spec(tmp_path, "sleep", "3600")
        await engine.create(hour)
        await engine.start(hour)
        await clock.advance(3599)
        assert (await engine.observe(hour.key)).phase is Phase.RUNNING
        await clock.advance(2)
        seen = await engine.observe(hour.key)
        assert seen.exit == Exit(0)
        assert seen.started_at is not None
        assert seen.finished_at == seen.started_at + 3600

    play(script)


def test_a_pause_does_not_count(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        minute = spec(tmp_path, "sleep", "60")
        await engine.create(minute)
        await engine.start(minute)
        await clock.advance(50)
        await engine.pause(minute.key)
        await clock.advance(1000)
        await engine.resume(minute.key)
        await clock.advance(9)
        assert (await engine.observe(minute.key)).phase is Phase.RUNNING
        await clock.advance(2)
        assert (await engine.observe(minute.key)).phase is Phase.EXITED

    play(script)


def test_a_step_can_fail_before_it_is_done_and_after(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        task = spec(tmp_path, "sleep", "60")
        await engine.create(task)
        engine.faults.before["start"] = [EngineFailed("no")]
        engine.faults.after["start"] = [EngineFailed("answer lost")]
        with pytest.raises(EngineFailed, match="no"):
            await engine.start(task)
        assert node.executions[task.key] == 0
        with pytest.raises(EngineFailed, match="answer lost"):
            await engine.start(task)
        await engine.start(task)
        assert node.executions[task.key] == 1

    play(script)


def test_events_are_lost_and_doubled(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        for lost, doubled, expected in ((1.0, 0.0, 0), (0.0, 0.0, 2), (0.0, 1.0, 4)):
            engine.faults.events_lost, engine.faults.events_doubled = lost, doubled
            task = spec(tmp_path, "true", task_id=expected + 1)
            await engine.create(task)
            await engine.start(task)
            await clock.settle()
            events = engine.events()
            heard = [await anext(events) for _ in range(expected)]
            assert heard == [task.key] * expected

    play(script)


def test_an_unreachable_engine_answers_nothing_and_its_workloads_go_on(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        task = spec(tmp_path, "sleep", "60")
        await engine.create(task)
        await engine.start(task)
        engine.faults.unreachable = True
        with pytest.raises(EngineFailed) as caught:
            await engine.observe(task.key)
        assert caught.value.retry_elsewhere
        await clock.advance(61)
        engine.faults.unreachable = False
        assert (await engine.observe(task.key)).exit == Exit(0)

    play(script)


def test_output_reaches_the_files_only_while_somebody_copies_it(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        task = spec(tmp_path, "sh", "-c", "echo one; sleep 10; echo two")
        await engine.create(task)
        await engine.start(task)
        await clock.settle()
        await engine.close()
        await clock.advance(11)
        assert (task.log_directory / "stdout").read_bytes() == b"one\n"
        later = FakeEngine(node)
        await later.open()
        await later.adopt(task)
        assert (task.log_directory / "stdout").read_bytes() == b"one\ntwo\n"

    play(script)


def test_a_reboot_ends_what_ran(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        task = spec(tmp_path, "sleep", "60")
        await engine.create(task)
        await engine.start(task)
        node.reboot()
        assert (await engine.observe(task.key)).exit == Exit(137, 9)

    play(script)


def test_a_thousand_tasks_cost_little(tmp_path: Path) -> None:
    async def script(node: FakeNode, engine: FakeEngine, clock: ManualClock) -> None:
        for number in range(1000):
            task = spec(tmp_path, "true", task_id=number)
            await engine.create(task)
            await engine.start(task)
        await clock.settle()
        assert all(seen.exit == Exit(0) for seen in await engine.observe_all())

    begun = time.process_time()
    play(script)
    assert time.process_time() - begun < 2.0, "two milliseconds each would make every cluster test slow"
