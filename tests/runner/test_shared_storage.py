"""Shared storage: used when it can be written and bears our cluster's mark, and said to be missing otherwise."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.runner.shared_storage import MARKER_NAME, SharedStorage
from tests.manual_clock import ManualClock
from tests.runner.stage import Stage, key, play


def look(directory: Path | None, cluster_id: str = "riverbed") -> SharedStorage:
    async def whole() -> SharedStorage:
        storage = SharedStorage(directory, ManualClock())
        await storage.look(cluster_id)
        return storage

    return asyncio.run(whole())


def test_marked_and_writable_it_is_used(tmp_path: Path) -> None:
    (tmp_path / MARKER_NAME).write_text("riverbed\n")
    storage = look(tmp_path)
    assert (storage.verdict.usable, storage.logs, storage.data) == (True, tmp_path / "logs", f"{tmp_path}/shared_data")
    assert not list((tmp_path / "logs").iterdir())


@pytest.mark.parametrize("mark", [None, "another\n", "", b"\xff\xfe"])
def test_unmarked_or_marked_by_another_it_is_not(tmp_path: Path, mark: str | bytes | None) -> None:
    if mark is not None:
        (tmp_path / MARKER_NAME).write_bytes(mark if isinstance(mark, bytes) else mark.encode())
    storage = look(tmp_path)
    assert (storage.verdict.usable, storage.logs, storage.data) == (False, None, "")
    assert str(tmp_path) in storage.verdict.why
    assert not (tmp_path / "logs").exists(), "nothing is written where it is not ours"


def test_a_file_in_its_place_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / MARKER_NAME).write_text("riverbed")
    (tmp_path / "logs").write_text("in the way")
    assert "cannot be used" in look(tmp_path).verdict.why


def test_without_a_directory_there_is_nothing_to_say() -> None:
    assert look(None).verdict.why == ""


def test_outputs_go_to_the_shared_storage_and_are_found_there(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        await stage.start_runner(shared_dir=str(shared))
        await stage.at_rest()
        await stage.shell("echo early")
        await stage.told("ended")
        assert stage.log() == b"early\n", "not marked yet: the own disk has it"
        await stage.until(lambda: stage.host.heartbeats and stage.host.heartbeats[-1].warnings, pass_seconds=0.5)
        assert "shared storage is not used" in stage.host.heartbeats[-1].warnings[0]
        (shared / MARKER_NAME).write_text(stage.host.cluster_id)
        await stage.until(lambda: not stage.host.heartbeats[-1].warnings, pass_seconds=0.5)
        await stage.shell("echo late; sleep 10", task_id=2)
        await stage.told("running", task_id=2)
        spec = stage.node.workloads[key(2)].spec
        assert (spec.mounts[0].source, spec.mounts[0].target) == (f"{shared}/shared_data", "/shared")
        await stage.told("ended", task_id=2, pass_seconds=0.5)
        assert (shared / "logs/2/1/stdout").read_bytes() == b"late\n"
        await stage.forgotten()
        assert await stage.output() == b"early\n"
        assert await stage.output(task_id=2) == b"late\n"

    play(tmp_path, script, runner=False)


def test_a_restart_keeps_writing_where_it_began(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        await stage.start_runner(shared_dir=str(shared))
        await stage.at_rest()
        await stage.shell("echo one; sleep 5; echo two")
        await stage.told("running")
        (shared / MARKER_NAME).write_text(stage.host.cluster_id)
        await stage.another_runner(shared_dir=str(shared))
        await stage.told("ended", pass_seconds=0.1)
        assert stage.log() == b"one\ntwo\n"

    play(tmp_path, script, runner=False)
