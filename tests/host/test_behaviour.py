"""What the host does as time passes: silence, loss, return, refusals, restarts; on a clock that is moved by hand."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.services.task_scheduler import ABSENCE_GRACE_SECONDS
from kohakuriver.model.errors import NotFound
from kohakuriver.model.report import State
from kohakuriver.model.runner_api import Execute, Kill
from kohakuriver.system.secrets import UnsafeFile
from tests.host.rig import House, MadeUpRunner, play, running
from tests.manual_clock import ManualClock

RETRY: dict[str, Any] = {"max_attempts": 3, "retry_on": ["loss"]}


async def running_task(house: House, **more: Any) -> str:
    task_id = await house.submit("stay", **more)
    await house.becomes(task_id, "running")
    return task_id


def test_a_node_that_is_silent_goes_offline_and_its_tasks_are_lost(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await running_task(house)
        await house.passes(60, runner)
        assert (await house.get("/api/nodes/n1"))["status"] == "online"
        await house.passes(29)
        assert (await house.get("/api/nodes/n1"))["status"] == "online", "not before its time"
        await house.passes(12)
        await house.node_becomes("n1", "offline")
        lost = await house.becomes(task_id, "lost")
        assert "silent" in lost["error_message"] and lost["completed_at"] and lost["assigned_node"] == "n1"
        waits = await house.submit("true")

        async def told() -> bool:
            return bool((await house.task(waits))["reason"] == "n1: offline")

        await house.until(told, "the reason")

    play(tmp_path, script)


def test_what_was_lost_and_still_runs_is_running_again(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await running_task(house, required_gpus=1)
        await house.passes(45)
        await house.becomes(task_id, "lost")
        await runner.heartbeat()
        back = await house.task(task_id)
        assert (back["status"], back["completed_at"], back["error_message"]) == ("running", None, None)
        node = await house.get("/api/nodes/n1")
        assert (node["status"], node["cores_free"], node["gpus_free"]) == ("online", 3, [1])
        runner.end(task_id, 7)
        await runner.change()
        assert (await house.task(task_id))["exit_code"] == 7
        assert await house.history(task_id) == [
            "submitted",
            "placed",
            "started",
            "node_lost",
            "found_alive",
            "exited_bad",
        ]

    play(tmp_path, script)


def test_the_true_end_of_what_was_lost_counts(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await running_task(house)
        await house.passes(45)
        await house.becomes(task_id, "lost")
        runner.end(task_id, 0)
        await runner.heartbeat()
        assert (await house.task(task_id))["status"] == "completed" and not runner.held

    play(tmp_path, script)


def test_what_is_lost_with_a_retry_policy_runs_elsewhere_and_its_older_attempt_is_fenced(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        first, second = await house.runner("n1", cores=8), await house.runner("n2", cores=4)
        task_id = await running_task(house, **RETRY)
        await house.passes(45, second)
        again = await house.becomes(task_id, "running", attempt=2)
        assert (again["assigned_node"], again["attempt"], again["tries"]) == ("n2", 2, 2)
        first.end(task_id, 0)
        first.held[int(task_id), 1] = replace(first.held[int(task_id), 1], state=State.RUNNING)
        told = await first.heartbeat()
        assert [(ref.task_id, ref.attempt) for ref in told.fenced] == [(int(task_id), 1)] and not told.ended
        assert (await house.task(task_id))["assigned_node"] == "n2", "the older attempt is never believed"
        second.end(task_id, 0)
        await second.change()
        assert (await house.task(task_id))["status"] == "completed"
        assert first.executed == [(int(task_id), 1)] and second.executed == [(int(task_id), 2)]

    play(tmp_path, script)


def test_the_end_of_an_older_attempt_is_acknowledged_and_not_believed(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        first, second = await house.runner("n1", cores=8), await house.runner("n2", cores=4)
        task_id = await running_task(house, **RETRY)
        await house.passes(45, second)
        await house.becomes(task_id, "running", attempt=2)
        first.end(task_id, 9)
        told = await first.heartbeat()
        assert [ref.attempt for ref in told.ended] == [1] and not first.held
        assert (await house.task(task_id))["status"] == "running"

    play(tmp_path, script)


def test_failures_are_tried_as_often_as_was_asked_and_no_more(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("false", max_attempts=3)
        done = await house.becomes(task_id, "failed")
        assert (done["attempt"], done["tries"], done["exit_code"]) == (3, 3, 3)
        assert runner.executed == [(int(task_id), n) for n in (1, 2, 3)]
        events = await house.history(task_id)
        assert events == ["submitted", "placed", "retried", "placed", "retried", "placed", "exited_bad"]
        once = await house.submit("false", max_attempts=3, retry_on=["loss"])
        assert (await house.becomes(once, "failed"))["attempt"] == 1

    play(tmp_path, script)


def test_a_task_turned_away_is_tried_elsewhere_and_comes_back_later(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        first = await house.runner("n1", cores=8)
        task_id = await house.submit("refuse here", max_attempts=1)

        async def told() -> bool:
            return "turned it away: no room for the image" in ((await house.task(task_id))["reason"] or "")

        await house.until(told, "the reason")
        waits = await house.task(task_id)
        assert (waits["status"], waits["attempt"], waits["tries"]) == ("pending", 1, 0), "it counts against nobody"
        assert waits["reason"] == "n1: turned it away: no room for the image"
        orders = len(first.orders)
        await house.passes(1, first)
        assert len(first.orders) == orders, "it keeps away for a while"
        for seconds in (2, 4, 8):
            before = len(first.orders)
            await house.passes(seconds + 1.5, first)

            async def tried(before: int = before) -> bool:
                return len(first.orders) == before + 1

            await house.until(tried, f"another try after {seconds} s")
        second = await house.runner("n2", cores=2)
        assert second
        history = await house.history(task_id)
        assert history[:5] == ["submitted", "placed", "returned", "placed", "returned"]

    play(tmp_path, script)


def test_another_node_takes_what_one_turned_away(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        first, second = await house.runner("n1", cores=8), await house.runner("n2", cores=2)
        task_id = await house.submit("refuse here")

        async def both() -> bool:
            return len(first.orders) >= 1 and len(second.orders) >= 1

        await house.until(both, "both to be asked")
        assert isinstance(first.orders[0], Execute) and first.orders[0].attempt == 1 and second.orders[0].attempt == 2
        assert (await house.task(task_id))["tries"] <= 1

    play(tmp_path, script)


def test_a_refusal_that_holds_everywhere_fails_the_task_with_the_reason(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner("n1"), await house.runner("n2")
        task_id = await house.submit("refuse", max_attempts=5)
        done = await house.becomes(task_id, "failed")
        assert done["error_message"] == "registry_image: no such image anywhere" and done["attempt"] == 1

    play(tmp_path, script)


def test_a_runner_that_refuses_after_taking_it_on_says_so_in_its_report(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        for elsewhere, status in ((False, "failed"), (True, "pending")):
            task_id = await house.submit("prepare")

            async def taken(task_id: str = task_id) -> bool:
                return any(key[0] == int(task_id) for key in runner.held)

            await house.until(taken)
            runner.end(task_id, refused=True, retry_elsewhere=elsewhere, message="no such image")
            await runner.change()
            assert (await house.becomes(task_id, status))["status"] == status

    play(tmp_path, script)


def test_a_task_that_reached_no_runner_goes_back_into_the_queue_without_counting(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        runner.url = "http://127.0.0.1:1"  # nobody listens there
        await runner.register()
        task_id = await house.submit("true", max_attempts=1)
        await house.becomes(task_id, "assigning")
        for _ in range(4):
            await house.passes(5)
        await house.passes(25)
        back = await house.becomes(task_id, "pending")
        assert (back["tries"], back["status"]) == (0, "pending"), "it was certainly not run, however often it was tried"
        other = await house.runner("n2")
        done = await house.becomes(task_id, "completed")
        assert done["assigned_node"] == "n2" and other.executed == [(int(task_id), 2)]

    play(tmp_path, script)


def test_a_task_that_may_have_reached_its_runner_is_not_run_a_second_time(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner("n1", cores=8)
        second = await house.runner("n2", cores=4)
        task_id = await house.submit("lose the answer", max_attempts=1)
        await house.becomes(task_id, "assigning")
        await house.passes(45, second)
        await house.becomes(task_id, "lost")
        await house.passes(20, second)
        assert (await house.task(task_id))["status"] == "lost" and not second.executed

    play(tmp_path, script)


def test_a_node_that_comes_back_gets_work_again(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        await house.passes(45)
        await house.node_becomes("n1", "offline")
        task_id = await house.submit("true")
        await house.passes(3)
        assert (await house.task(task_id))["status"] == "pending"
        await runner.heartbeat()
        await house.becomes(task_id, "completed")

    play(tmp_path, script)


def test_what_a_runner_no_longer_knows_is_lost_or_tried_again(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        once, twice = await running_task(house), await running_task(house, **RETRY)
        runner.held.clear()
        await runner.heartbeat()
        assert "no longer knows it" in (await house.becomes(once, "lost"))["error_message"]
        await house.becomes(twice, "running", attempt=2)
        assert (await house.get("/api/nodes/n1"))["cores_free"] == 3

    play(tmp_path, script)


def test_what_was_accepted_and_never_reported_is_lost_only_when_no_older_report_can_come(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        runner.talks = False
        task_id = await house.submit("stay")

        async def sent() -> bool:
            return bool(runner.held)

        await house.until(sent)
        await asyncio.sleep(0.05)
        runner.held.clear()
        await house.passes(ABSENCE_GRACE_SECONDS - 15, runner)
        assert (await house.task(task_id))["status"] == "assigning"
        await house.passes(30, runner)
        assert (await house.task(task_id))["status"] == "lost"
        assert runner.executed == [(int(task_id), 1)], "and it was not sent again meanwhile"

    play(tmp_path, script)


def test_killing_what_is_lost_comes_true_when_its_node_is_back_or_gone(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        alive, gone, deleted = [await running_task(house) for _ in range(3)]
        await house.passes(45)
        for task_id in (alive, gone):
            await house.becomes(task_id, "lost")
            assert (await house.post(f"/api/tasks/{task_id}/kill"))["status"] == "lost", "not before it is true"
        runner.held.pop((int(gone), 1))
        await runner.heartbeat()
        assert (await house.becomes(alive, "killed"))["signal"] == 15
        await house.passes(ABSENCE_GRACE_SECONDS, runner)
        assert (await house.task(gone))["status"] == "killed"
        await house.passes(45)
        await house.becomes(deleted, "lost")
        await house.post(f"/api/tasks/{deleted}/kill")
        assert (await house.ask("DELETE", "/api/nodes/n1"))[0] == 200
        assert (await house.task(deleted))["status"] == "killed", "who deletes its node says that it is gone for good"

    play(tmp_path, script)


def test_killing_what_is_lost_on_a_deleted_node_is_at_once(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner()
        task_id = await running_task(house)
        await house.passes(45)
        await house.becomes(task_id, "lost")
        assert (await house.ask("DELETE", "/api/nodes/n1"))[0] == 200
        assert (await house.post(f"/api/tasks/{task_id}/kill"))["status"] == "killed"

    play(tmp_path, script)


def test_a_kill_while_it_is_being_handed_over_is_carried_out(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        runner.url = "http://127.0.0.1:1"
        await runner.register()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "assigning")
        assert (await house.post(f"/api/tasks/{task_id}/kill"))["status"] == "assigning"
        real = await house.runner("n1", joins=False)
        runner.url = real.url
        await runner.register()
        await house.passes(3, runner)
        done = await house.becomes(task_id, "killed")
        assert done["attempt"] == 1 and not real.executed and isinstance(real.orders[0], Kill)

    play(tmp_path, script)


# --- restarts -------------------------------------------------------------------------------------------------------------


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
        async with asyncio.timeout(60), running(tmp_path, clock) as first:
            runner = await first.runner()
            runner.talks = False
            done, stays = await first.submit("true"), await first.submit("stay", required_gpus=2)
            waits, killed = await first.submit("stay", required_gpus=1), await first.submit("prepare")

            async def sent() -> bool:
                return len(runner.executed) == 3

            await first.until(sent)
            await first.post(f"/api/tasks/{killed}/kill")
            cluster = first.host.cluster_id
            await asyncio.sleep(0.05)
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
