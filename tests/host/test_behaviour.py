"""What the host does as time passes: silence, loss, return, refusals, restarts; on a clock that is moved by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.host.background import dispatch
from kohakuriver.host.background.log_keeper import LogKeeper
from kohakuriver.host.services.task_scheduler import ABSENCE_GRACE_SECONDS
from kohakuriver.model.report import State
from kohakuriver.model.runner_api import Execute, Kill
from kohakuriver.system.kept_logs import Keep
from tests.host.rig import RETRY, House, play, running_task


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


def test_what_can_never_run_keeps_nothing_behind_it_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUEUE_LIMIT", 5)

    async def script(house: House) -> None:
        await house.runner()
        impossible = [await house.submit("true", required_cores=1000, priority=1) for _ in range(9)]
        await house.becomes(await house.submit("true"), "completed")
        assert "no registered node can ever run it" in (await house.task(impossible[0]))["reason"]

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
        runner.store = "other records, for those are lost"
        await house.passes(ABSENCE_GRACE_SECONDS - 15, runner)
        assert (await house.task(task_id))["status"] == "assigning"
        await house.passes(30, runner)
        assert (await house.task(task_id))["status"] == "lost"
        assert runner.executed == [(int(task_id), 1)], "and it was not sent again meanwhile"

    play(tmp_path, script)


@asynccontextmanager
async def deaf_server() -> AsyncIterator[str]:
    """Where orders go and nobody learns what became of them."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("records", ["kept", "lost"])
def test_what_never_came_to_its_node_waits_again_when_that_is_proved(tmp_path: Path, records: str) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        async with deaf_server() as url:
            real, runner.url = runner.url, url
            await runner.register()
            task_id = await house.submit("true", max_attempts=1)
            await house.passes(45)
            await house.becomes(task_id, "lost")
        runner.url = real
        if records == "lost":
            runner.store = "others"
        await runner.register()
        await house.passes(ABSENCE_GRACE_SECONDS / 2, runner)
        assert (await house.task(task_id))["status"] == "lost", "it may still be under way"
        await house.passes(ABSENCE_GRACE_SECONDS, runner)
        if records == "lost":
            assert (await house.task(task_id))["status"] == "lost", "nobody knows"
        else:
            done = await house.becomes(task_id, "completed")
            assert (done["attempt"], done["tries"], runner.executed) == (2, 1, [(int(task_id), 2)])

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


def test_outputs_of_ended_tasks_are_kept_only_so_long_in_the_shared_storage(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        over, lost, runs = await house.submit("true"), await running_task(house), await running_task(house)
        await house.becomes(over, "completed")
        for task_id in (over, lost, runs, "404"):
            (tmp_path / "logs" / task_id / "1").mkdir(parents=True)
            (tmp_path / "logs" / task_id / "1" / "stdout").write_text(f"output of {task_id}")
        gone = runner.held.pop((int(lost), 1))
        await runner.heartbeat()
        await house.becomes(lost, "lost")
        keeper = LogKeeper(tmp_path / "logs", Keep(0, 1), house.host.db, house.clock)
        await keeper.step()
        assert "this output was removed on" in await house.get(f"/api/tasks/{over}/stdout")
        assert "this output was removed on" in await house.get(f"/api/tasks/{over}/stderr?follow=true&lines=3")
        runner.held[int(lost), 1] = gone
        for task_id in (lost, runs):
            assert await house.get(f"/api/tasks/{task_id}/stdout") == f"output of {task_id}"
        assert (tmp_path / "logs" / "404").exists(), "what is nobody's that is known here is left alone"

    play(tmp_path, script, shared_dir=str(tmp_path))


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
