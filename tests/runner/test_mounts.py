"""Mounts that tasks ask for, on a real disk with links."""

import os
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.mounts import check_again, resolve, rules_of
from kohakuriver.system.engine import Mount
from tests.runner.stage import Stage, key, play


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "allowed/data").mkdir(parents=True)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "allowed/way-out").symlink_to(tmp_path / "hidden")
    (tmp_path / "allowed/round").symlink_to(tmp_path / "allowed/round")
    (tmp_path / "link-to-allowed").symlink_to(tmp_path / "allowed")
    return tmp_path


def rules(tree: Path, **changes: Any) -> Any:
    asked: dict[str, Any] = {"allowed_mount_roots": [str(tree / "link-to-allowed")], "state_dir": str(tree / "state")}
    return rules_of(RunnerSettings(**(asked | changes)))


def test_a_source_is_what_its_links_lead_to(tree: Path) -> None:
    (tree / "allowed/inner").symlink_to(tree / "allowed/data")
    found = resolve([f"{tree}/link-to-allowed/inner:/data:ro"], rules(tree))
    assert found == (Mount(str(tree / "allowed/data"), "/data", True),)


@pytest.mark.parametrize("name", ["allowed/way-out", "hidden", "allowed/absent", "allowed/round", "."])
def test_what_leads_outside_or_nowhere_is_refused(tree: Path, name: str) -> None:
    with pytest.raises(NotAllowed):
        resolve([f"{tree}/{name}:/data"], rules(tree))


def test_own_files_of_the_runner_are_refused_though_they_lie_below_a_root(tree: Path) -> None:
    everything = rules(tree, allowed_mount_roots=["/"], cluster_secret_file=str(tree / "hidden/key"))
    for source in (tree / "hidden", Path("/"), Path("/proc/1"), Path("/dev")):
        with pytest.raises(NotAllowed, match="may not be shown"):
            resolve([f"{source}:/data"], everything)
    assert resolve([f"{tree}/allowed:/data"], everything)


def test_what_changed_since_it_was_allowed_is_refused(tree: Path) -> None:
    found = resolve([f"{tree}/allowed/data:/data"], rules(tree))
    check_again(found, rules(tree))
    os.rename(tree / "allowed/data", tree / "allowed/old")
    with pytest.raises(NotAllowed):
        check_again(found, rules(tree))
    (tree / "allowed/data").symlink_to(tree / "hidden")
    with pytest.raises(NotAllowed, match="changed meanwhile"):
        check_again(found, rules(tree))


def test_a_task_gets_its_mounts_or_is_refused_with_the_reason(tree: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.start_runner(allowed_mount_roots=[str(tree / "allowed")])
        await stage.at_rest()
        await stage.execute("sleep", "60", additional_mounts=[f"{tree}/allowed/data:/data"])
        await stage.told("running")
        assert Mount(f"{tree}/allowed/data", "/data") in stage.node.workloads[key()].spec.mounts
        asked = {2: ["/etc:/data"], 3: [f"{tree}/allowed/way-out:/data"], 4: [f"{tree}/allowed/data:/proc/1"]}
        for task_id, mounts in asked.items():
            await stage.execute("true", task_id=task_id, additional_mounts=mounts)
            end = await stage.told("ended", task_id=task_id)
            assert (end.refused, end.retry_elsewhere) == (True, False)
            assert mounts[0] in (end.message or "")
        await stage.execute("true", task_id=5, privileged=True)
        assert (await stage.told("ended", task_id=5)).refused

    play(tree, script, runner=False)


def test_a_mount_that_changes_while_the_image_comes_is_refused(tree: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.start_runner(allowed_mount_roots=[str(tree / "allowed")])
        await stage.at_rest()
        stage.engine.faults.delay_seconds["ensure_image"] = 5
        await stage.execute("true", additional_mounts=[f"{tree}/allowed/data:/data"])
        await stage.until(lambda: ("ensure_image", None) in stage.engine.calls)
        os.rename(tree / "allowed/data", tree / "allowed/old")
        (tree / "allowed/data").symlink_to(tree / "hidden")
        end = await stage.told("ended", pass_seconds=0.1)
        assert end.refused
        assert "changed meanwhile" in (end.message or "")
        assert not stage.node.executions

    play(tree, script, runner=False)
