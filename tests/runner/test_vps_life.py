"""A VPS on its node: it goes on until it is stopped, stays when it is, and goes on from what it was."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, EngineFailed
from kohakuriver.model.node import Gpu
from kohakuriver.model.report import AttemptRef, Claim, State
from kohakuriver.model.runner_api import DISCARD, Attempt, TaskRef
from kohakuriver.model.runner_vps_api import DELETE_VPS, SNAPSHOTS, TAKE_SNAPSHOT
from kohakuriver.model.vps import SnapshotState, TakeSnapshot
from kohakuriver.runner.snapshots import to_prune
from kohakuriver.runner.use import Reading, is_busy
from kohakuriver.system.engine import Exit, Phase, Saved
from tests.fake_engine import FakeWorkload
from tests.runner.stage import Stage, key, play

DELETE = TaskRef(task_id=1)  # type: ignore[arg-type]


def workload(stage: Stage, attempt: int = 1) -> FakeWorkload:
    return stage.node.workloads[key(attempt=attempt)]


async def running(stage: Stage, attempt: int = 1, **order: Any) -> FakeWorkload:
    await stage.vps(attempt, **order)
    await stage.told("running", attempt=attempt)
    return workload(stage, attempt)


async def stopped(stage: Stage, attempt: int = 1, spare: int | None = None) -> None:
    await stage.clock.advance(1)
    await stage.stop_vps(attempt, spare)
    await stage.told("ended", attempt=attempt, pass_seconds=0.1)
    await stage.until(lambda: not stage.runner.workloads.holds_any, pass_seconds=0.5)


def files(stage: Stage, attempt: int) -> dict[str, str]:
    return {name: text for name, (text, _) in workload(stage, attempt).files.items()}


def test_a_stopped_vps_stays_on_its_node_and_is_saved(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        assert workload(stage).spec.name == "kohakuriver-vps-1"
        await stopped(stage)
        assert workload(stage).phase is Phase.EXITED
        assert [saved.automatic for saved in stage.node.snapshots[1]] == [True]
        await stage.another_runner()
        await stage.at_rest()
        await stage.clock.advance(30)
        assert workload(stage).phase is Phase.EXITED, "nobody starts it, and nobody takes it away"

    play(tmp_path, script)


def test_a_vps_whose_node_was_switched_off_goes_on_by_itself(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        await stage.stop_runner()
        await stage.clock.advance(100)
        stage.node.reboot()
        await stage.start_runner(stage.fresh_engine())
        await stage.until(lambda: workload(stage).phase is Phase.RUNNING, pass_seconds=0.1)
        assert files(stage, 1) == {"notes": "one"}
        assert stage.host.told[key()].state is State.RUNNING

    play(tmp_path, script)


def test_a_vps_that_was_being_stopped_when_the_node_died_does_not_come_back(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.engine.faults.before["signal"] = [EngineFailed("away", retry_elsewhere=True)] * 1000
        await stage.stop_vps()
        await stage.stop_runner()
        stage.node.reboot()
        await stage.start_runner(stage.fresh_engine())
        await stage.told("ended", pass_seconds=0.1)
        await stage.clock.advance(60)
        assert workload(stage).phase is Phase.EXITED
        assert stage.node.executions == {key(): 1}

    play(tmp_path, script)


def test_a_vps_that_ends_at_once_each_time_is_given_up(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)

        def end_it() -> bool:
            if workload(stage).phase is Phase.RUNNING:
                workload(stage).end(Exit(1))
            return stage.host.told[key()].state is State.ENDED

        await stage.until(end_it, pass_seconds=0.5)
        assert "it ends at once, 6 times in a row" in str(stage.host.told[key()].message)
        assert workload(stage).phase is Phase.EXITED

    play(tmp_path, script)


def test_it_goes_on_from_what_it_was_when_it_stopped_and_from_what_was_written_since(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        await stopped(stage)
        await stage.clock.advance(5)
        workload(stage).write("more", "two")
        again = await running(stage, 2)
        assert again.spec.image.startswith("kohakuriver-snapshot/vps-1:")
        assert files(stage, 2) == {"notes": "one", "more": "two"}
        assert list(stage.node.workloads) == [key(attempt=2)], "never two of one VPS"
        assert len(stage.node.snapshots[1]) == 2

    play(tmp_path, script)


def test_it_goes_back_to_a_chosen_snapshot_and_what_it_was_is_saved_before(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        await stopped(stage)
        first = stage.node.snapshots[1][0].timestamp
        await stage.clock.advance(5)
        (await running(stage, 2)).write("notes", "two")
        await stopped(stage, 2)
        await running(stage, 3, restore=first)
        assert files(stage, 3) == {"notes": "one"}
        saved = {stage.node.saved_files[each.image]["notes"][0] for each in stage.node.snapshots[1]}
        assert saved == {"one", "two"}

    play(tmp_path, script)


def test_a_snapshot_that_is_not_there_is_told_and_leaves_the_vps_as_it_is(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        await stopped(stage)
        await stage.vps(2, restore=77)
        end = await stage.told("ended", attempt=2)
        assert end.refused and not end.retry_elsewhere and "no snapshot 77" in str(end.message)
        assert workload(stage).phase is Phase.EXITED

    play(tmp_path, script)


def test_without_its_container_it_goes_on_from_the_latest_snapshot(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        await stopped(stage)
        await stage.engine.remove(key())
        await running(stage, 2)
        assert files(stage, 2) == {"notes": "one"}

    play(tmp_path, script)


def test_without_container_and_snapshot_it_is_not_made_anew_behind_somebodys_back(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.vps(2)
        end = await stage.told("ended", attempt=2)
        assert end.refused and "there is no snapshot of it" in str(end.message)

    play(tmp_path, script)


def test_a_vps_stops_although_there_is_no_room_to_save_it_and_says_so(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.node.lacks_room = "a snapshot takes 5G, where 1G are free"
        await stopped(stage)
        assert "no snapshot was taken: a snapshot takes 5G" in str(stage.host.told[key()].message)
        await stage.vps(2)
        end = await stage.told("ended", attempt=2)
        assert end.refused and "takes 5G" in str(end.message)
        assert workload(stage).phase is Phase.EXITED, "what is not saved is not given up"

    play(tmp_path, script)


def test_a_deleted_vps_leaves_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        with pytest.raises(Conflict, match="not ended yet"):
            await stage.call(DELETE_VPS, DELETE)
        await stage.kill()
        assert (await stage.told("ended", pass_seconds=0.1)).killed
        await stage.until(lambda: not stage.runner.workloads.holds_any, pass_seconds=0.5)
        assert workload(stage).phase is Phase.EXITED and not stage.node.snapshots
        await stage.call(DELETE_VPS, DELETE)
        await stage.call(DELETE_VPS, DELETE)
        assert not stage.node.workloads

    play(tmp_path, script)


def test_a_host_that_does_not_know_a_vps_learns_whose_it_is(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        assert stage.host.told[key()].claim is None
        await stage.another_runner()
        stage.host.doubts.append(AttemptRef(Snowflake(1), 1))
        await stage.until(lambda: stage.host.told[key()].claim is not None, pass_seconds=0.1)
        assert stage.host.told[key()].claim == Claim(owner="ada", is_vps=True, proof="signed")
        assert workload(stage).phase is Phase.RUNNING

    play(tmp_path, script)


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
def test_a_vps_that_an_admin_discards_leaves_nothing(tmp_path: Path, runs: bool) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.host.acknowledges = False  # it does not know what has ended there
        await stage.call(TAKE_SNAPSHOT, TakeSnapshot(task_id=Snowflake(1)))
        await stage.until(lambda: stage.node.snapshots.get(1))
        if not runs:
            await stage.stop_vps()
            await stage.told("ended", pass_seconds=0.1)
        with pytest.raises(Conflict, match="attempt 1, not 2"):
            await stage.call(DISCARD, Attempt(task_id=Snowflake(1), attempt=2))
        await stage.call(DISCARD, Attempt(task_id=Snowflake(1), attempt=1))
        await stage.until(lambda: not stage.node.workloads and not stage.node.snapshots.get(1))
        await stage.until(lambda: not stage.runner.workloads.holds_any)

    play(tmp_path, script)


def test_a_delete_overtakes_a_stop(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.engine.faults.before["signal"] = [EngineFailed("away", retry_elsewhere=True)] * 4
        await stage.stop_vps()
        await stage.kill()
        assert (await stage.told("ended", pass_seconds=0.5)).killed
        assert not stage.node.snapshots, "nobody saves what is to go"

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("kinds", "stay"),
    [
        ("a", "0"),
        ("aaaa", "123"),
        ("mmm", "012"),
        ("mmmm", "123"),
        ("mmma", "0123"),
        ("mmmaa", "0124"),
        ("amam", "123"),
        ("ammma", "1234"),
        ("aammaam", "2356"),
    ],
)
def test_automatic_snapshots_make_room_first(kinds: str, stay: str) -> None:
    saved = [Saved(timestamp=n, image="", automatic=kind == "a") for n, kind in enumerate(kinds)]
    gone = {each.timestamp for each in to_prune(saved, 3)}
    kept = "".join(str(n) for n in range(len(kinds)) if n not in gone)
    assert kept == stay


def test_the_host_is_told_whether_something_works_in_a_vps_that_is_watched(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.vps(watch_use=True)
        await stage.told("running")

        async def told(busy: bool, spends: float) -> None:
            def look() -> bool:
                workload(stage).cpu_seconds += spends
                return stage.host.told[key()].busy is busy

            await stage.until(look, pass_seconds=1.0)

        await told(False, 0.01)
        await told(True, 0.5)
        await told(False, 0.0)

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("spent", "gpu", "busy"), [(0.0, 0.0, False), (0.4, 0.0, False), (0.6, 0.0, True), (0.0, 50.0, True)]
)
def test_waiting_is_told_from_working(spent: float, gpu: float, busy: bool) -> None:
    gpus = [Gpu(index=0, name="Dream", utilization_percent=gpu)]
    assert is_busy(Reading(0.0, 5.0), Reading(10.0, 5.0 + spent), gpus) is busy
    assert is_busy(Reading(0.0, 5.0), Reading(10.0, 1.0), []), "one that was started again is in use"


def test_a_vps_that_runs_without_its_engine_knowing_is_started_anew(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "one")
        workload(stage).adrift = True
        stage.node.tell(workload(stage))
        await stage.until(lambda: stage.node.executions[key()] == 2, pass_seconds=0.5)
        assert not workload(stage).adrift and files(stage, 1) == {"notes": "one"}
        assert stage.host.told[key()].state is State.RUNNING

    play(tmp_path, script)


def test_a_stop_waits_until_a_snapshot_is_whole(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.engine.faults.delay_seconds["take"] = 30.0
        taken = await stage.call(TAKE_SNAPSHOT, TakeSnapshot(task_id=Snowflake(1), message="mine"))
        await stage.stop_vps()
        await stage.clock.advance(20)
        await asyncio.sleep(0.05)
        assert workload(stage).phase is Phase.RUNNING, "nobody ends, or thaws, what is being saved"
        with pytest.raises(Conflict, match="being taken already"):
            await stage.call(TAKE_SNAPSHOT, TakeSnapshot(task_id=Snowflake(1)))
        await stage.told("ended", pass_seconds=0.5)
        assert [saved.automatic for saved in stage.node.snapshots[1]] == [False]
        (listed,) = await stage.call(SNAPSHOTS, DELETE)
        assert (listed.timestamp, listed.message, listed.state) == (taken.timestamp, "mine", SnapshotState.READY)

    play(tmp_path, script)


def test_a_snapshot_that_cannot_be_taken_is_told_by_the_list(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await running(stage)
        stage.node.lacks_room = "there is no room"
        await stage.call(TAKE_SNAPSHOT, TakeSnapshot(task_id=Snowflake(1)))

        async def listed() -> tuple[SnapshotState, str | None]:
            (only,) = await stage.call(SNAPSHOTS, DELETE)
            return only.state, only.error

        while (await listed())[0] is SnapshotState.TAKING:
            await asyncio.sleep(0.01)
        assert await listed() == (SnapshotState.FAILED, "there is no room")
        stage.node.lacks_room = ""
        await stage.call(TAKE_SNAPSHOT, TakeSnapshot(task_id=Snowflake(1)))
        while (await listed())[0] is SnapshotState.TAKING:
            await asyncio.sleep(0.01)
        assert await listed() == (SnapshotState.READY, None)

    play(tmp_path, script)


def test_a_snapshot_that_was_chosen_makes_no_room_for_what_is_saved_before(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        (await running(stage)).write("notes", "first")
        await stopped(stage)
        oldest = stage.node.snapshots[1][0].timestamp
        for attempt in (2, 3):
            await stage.clock.advance(5)
            (await running(stage, attempt)).write("notes", str(attempt))
            await stopped(stage, attempt)
        workload(stage, 3).write("notes", "written since")
        await running(stage, 4, restore=oldest)
        assert files(stage, 4) == {"notes": "first"}
        workload(stage, 4).write("notes", "fourth")
        await stopped(stage, 4, spare=oldest)
        await running(stage, 5, restore=oldest)
        assert files(stage, 5) == {"notes": "first"}, "nor for what is saved when it stops to start again"

    play(tmp_path, script)
