"""Host and runners that stop and start again, late reports and stepped clocks: nothing is lost, nothing sent twice."""

import asyncio
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.host.services.task_scheduler import ABSENCE_GRACE_SECONDS
from kohakuriver.model.errors import NotFound
from kohakuriver.model.report import State
from kohakuriver.system.secrets import UnsafeFile
from tests.host.rig import RETRY, House, MadeUpRunner, play, running, running_task
from tests.manual_clock import ManualClock


def test_a_restarted_runner_goes_on_with_what_it_runs(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await running_task(house)
        late = runner.report()
        runner.begin_another_life()
        await runner.register()
        assert (await house.task(task_id))["status"] == "running"
        with pytest.raises(NotFound, match="this life"):
            await runner.heartbeat(report=replace(late, workloads=[]))
        assert (await house.task(task_id))["status"] == "running", (
            "a report from before its restart says nothing of now"
        )
        runner.end(task_id, 0)
        await runner.heartbeat()
        assert (await house.task(task_id))["status"] == "completed"

    play(tmp_path, script)


def test_reports_that_come_late_or_twice_change_nothing(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        before = runner.report()
        task_id = await running_task(house, **RETRY)
        told = await runner.heartbeat(report=before)
        assert not told.ended and not told.fenced and (await house.task(task_id))["attempt"] == 1
        runner.end(task_id, 0)
        last = runner.report()
        assert [ref.attempt for ref in (await runner.heartbeat(report=last)).ended] == [1]
        assert not (await runner.heartbeat(report=last)).ended
        assert (await house.history(task_id))[-1] == "exited_ok"

    play(tmp_path, script)


def test_reports_at_the_same_time_are_taken_in_their_order(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await running_task(house)
        for _ in range(5):
            paused = replace(runner.held[int(task_id), 1], state=State.PAUSED)
            runner.held[int(task_id), 1] = paused
            older = runner.report()
            runner.held[int(task_id), 1] = replace(paused, state=State.RUNNING)
            newer = runner.report()
            await asyncio.gather(runner.heartbeat(report=older), runner.heartbeat(report=newer))
            assert (await house.task(task_id))["status"] == "running"

    play(tmp_path, script)


def test_a_restarted_host_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    async def adopt(runner: MadeUpRunner, house: House) -> None:
        runner.host = house.peer(runner.hostname)

    async def body() -> None:
        clock = ManualClock()
        async with asyncio.timeout(60), AsyncExitStack() as outlives:
            async with running(tmp_path, clock) as first:
                runner = await first.runner()
                runner.talks = False
                done, stays = await first.submit("true"), await first.submit("stay", required_gpus=2)
                waits, killed = await first.submit("stay", required_gpus=1), await first.submit("prepare")

                async def sent() -> bool:
                    return len(runner.executed) == 3

                await first.until(sent)
                await first.post(f"/api/tasks/{killed}/kill")
                cluster = first.host.cluster_id
                await outlives.enter_async_context(first.stack.pop_all())
            async with running(tmp_path, clock) as second:
                assert second.host.cluster_id == cluster
                assert len(await second.get("/api/tasks")) == 4
                closed = (await second.task(waits))["reason"]
                assert closed in ("n1: not heard of yet", "n1: 1 GPUs asked, 0 free"), closed
                await adopt(runner, second)
                await runner.heartbeat()
                await second.becomes(stays, "running")
                assert (await second.task(done))["status"] == "completed"
                await second.passes(20, runner)
                await second.becomes(killed, "killed")
                assert (await second.task(waits))["status"] == "pending"
                runner.end(stays, 0)
                runner.talks = True
                await runner.heartbeat()
                await second.becomes(waits, "running")
                assert len(runner.executed) == len(set(runner.executed)) == 4
                assert int(await second.submit("true")) > int(killed), "ids go on from where they were"

    asyncio.run(body())


def test_a_host_that_stood_still_gives_nodes_their_full_time(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        assert isinstance(house.clock, ManualClock)
        runner = await house.runner()
        task_id = await running_task(house)
        house.clock.stand_still(3600)
        await house.passes(25)
        assert (await house.get("/api/nodes/n1"))["status"] == "online"
        await runner.heartbeat()
        assert (await house.task(task_id))["status"] == "running"
        await house.passes(45)
        await house.node_becomes("n1", "offline")

    play(tmp_path, script)


def test_a_restarted_host_sends_again_what_it_may_not_have_sent(tmp_path: Path) -> None:
    async def body() -> None:
        clock = ManualClock()
        async with asyncio.timeout(60), running(tmp_path, clock) as first:
            runner = await first.runner()
            runner.url = "http://127.0.0.1:1"
            await runner.register()
            task_id = await first.submit("true")
            await first.becomes(task_id, "assigning")
        async with running(tmp_path, clock) as second:
            real = await second.runner("n1")
            done = await second.becomes(task_id, "completed")
            assert (done["attempt"], real.executed) == (1, [(int(task_id), 1)])

    asyncio.run(body())


def test_a_restarted_host_waits_for_what_the_one_before_it_may_have_sent(tmp_path: Path) -> None:
    async def body() -> None:
        clock = ManualClock()
        async with asyncio.timeout(60), running(tmp_path, clock) as first:
            runner = await first.runner()
            runner.url = "http://127.0.0.1:1"
            await runner.register()
            task_id = await first.submit("true")
            await first.becomes(task_id, "assigning")
        async with running(tmp_path, clock) as second:
            await second.passes(45)
            await second.becomes(task_id, "lost")
            runner = await second.runner()
            await second.passes(ABSENCE_GRACE_SECONDS - 60, runner)
            assert (await second.task(task_id))["status"] == "lost"
            await second.passes(60, runner)
            done = await second.becomes(task_id, "completed")
            assert (done["attempt"], done["tries"], runner.executed) == (2, 1, [(int(task_id), 2)])

    asyncio.run(body())


def test_a_restarted_host_gives_up_on_nodes_that_stay_silent(tmp_path: Path) -> None:
    async def body() -> None:
        clock = ManualClock()
        async with asyncio.timeout(60), running(tmp_path, clock) as first:
            await first.runner()
            task_id = await running_task(first)
        async with running(tmp_path, clock) as second:
            other = await second.submit("stay")
            await second.passes(10)
            assert (await second.task(task_id))["status"] == "running"
            waits = await second.task(other)
            assert (waits["status"], waits["reason"]) == ("pending", "n1: not heard of yet"), (
                "nothing goes to who knows where"
            )
            await second.passes(35)
            await second.becomes(task_id, "lost")

    asyncio.run(body())


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_clock_that_is_stepped_an_hour_changes_nothing(tmp_path: Path, seconds: float) -> None:
    async def script(house: House) -> None:
        assert isinstance(house.clock, ManualClock)
        runner = await house.runner()
        task_id, waits = await running_task(house, required_cores=4), await house.submit("stay")
        house.clock.step_wall(seconds)
        await house.passes(25, runner)
        assert (await house.get("/api/nodes/n1"))["status"] == "online"
        assert (await house.task(task_id))["status"] == "running"
        late = await house.submit("true")
        assert int(late) > int(waits) > int(task_id), "the queue keeps its order"
        runner.end(task_id, 0)
        await runner.heartbeat()
        await house.becomes(waits, "running")
        house.clock.step_wall(-seconds)
        await house.passes(25, runner)
        assert (await house.task(waits))["status"] == "running"

    play(tmp_path, script)


def test_a_host_that_cannot_start_lets_go_of_everything(tmp_path: Path) -> None:
    async def body() -> None:
        (tmp_path / "secret").write_text("not a secret")
        with pytest.raises(UnsafeFile):
            async with running(tmp_path):
                raise AssertionError("it started")
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("store-")]

    asyncio.run(body())
