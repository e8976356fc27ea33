"""Control groups: what is written where, on made-up trees for both versions, and the real thing where it can be had."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.system import cgroup
from kohakuriver.system.cgroup import CgroupsV2, Limits

SCOPE = f"tests-of-control-groups-{os.getpid()}"
ROOT = Path(cgroup.ROOT)
V2_ROOTS = [str(place) for place in (ROOT, ROOT / "unified") if (place / "cgroup.controllers").exists()]
as_root = pytest.mark.skipif(not os.access(ROOT, os.W_OK), reason="only root may make control groups")


def touch(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch()


def text(path: Path) -> str:
    return path.read_text().strip()


def test_version_2_writes_its_limits(tmp_path: Path) -> None:
    touch(tmp_path, "cgroup.controllers", "cgroup.subtree_control", "cgroup.procs")
    place = tmp_path / "kohakuriver" / "one"
    touch(place, "cgroup.subtree_control")
    (place / "cgroup.subtree_control").write_text("cpu memory pids")
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.procs", "memory.events", "cgroup.freeze")
    touch(place / "1-1", *names)
    (place / "1-1" / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    found = cgroup.find("one", str(tmp_path))
    assert found is not None
    assert found.version == 2
    group = found.group("1-1")
    group.make(Limits(memory_bytes=64_000_000, pids=10, cpus=2))
    group.join()
    assert text(place / "1-1" / "pids.max") == "11", "whoever makes the first process is in it for a moment"
    group.leave()
    assert {name: text(place / "1-1" / name) for name in names[:5]} == {
        "memory.max": "64000000",
        "memory.swap.max": "0",
        "pids.max": "10",
        "cpu.max": "200000 100000",
        "cgroup.procs": "0",
    }
    assert group.oom_kills() == 3


def test_version_2_says_what_was_not_handed_down_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "cgroup.controllers", "cgroup.procs")
    found = cgroup.find("one", str(tmp_path))
    assert found is not None
    assert (found.limits_memory, found.limits_pids, found.limits_cpu) == (False, False, False)
    group = found.group("1-1")
    group.make(Limits(memory_bytes=64_000_000, pids=10, cpus=2))
    assert list((tmp_path / "kohakuriver" / "one" / "1-1").iterdir()) == []
    assert group.oom_kills() == 0
    assert group.remove()


def test_version_1_writes_its_limits(tmp_path: Path) -> None:
    for controller in ("freezer", "memory", "pids", "cpu"):
        touch(tmp_path / controller, "cgroup.procs")
    found = cgroup.find("one", str(tmp_path))
    assert found is not None
    assert found.version == 1
    files = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "pids": ("pids.max",),
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    }
    places = {controller: tmp_path / controller / "kohakuriver" / "one" / "1-1" for controller in files}
    for controller, names in files.items():
        touch(places[controller], *names)
    found.group("1-1").make(Limits(memory_bytes=64_000_000, pids=10, cpus=2))
    assert [text(places[controller] / name) for controller, names in files.items() for name in names] == [
        "64000000",
        "64000000",
        "11",
        "100000",
        "200000",
    ]


def test_version_1_makes_no_group_that_limits_nothing(tmp_path: Path) -> None:
    for controller in ("freezer", "memory", "pids", "cpu"):
        touch(tmp_path / controller, "cgroup.procs")
    found = cgroup.find("one", str(tmp_path))
    assert found is not None
    found.group("1-1").make(Limits())
    made = {path.parts[-4] for path in tmp_path.glob("*/kohakuriver/one/1-1")}
    assert made == {"freezer", "memory"}, "always there: to find its processes, and to know an OOM kill"


def test_where_none_can_be_made_there_are_none(tmp_path: Path) -> None:
    assert cgroup.find("one", str(tmp_path)) is None
    touch(tmp_path, "cgroup.controllers", "kohakuriver")
    assert cgroup.find("one", str(tmp_path)) is None


@as_root
class TestForReal:
    """On the kernel's own trees; a version 2 tree without controllers can still find, freeze and kill."""

    @pytest.fixture(params=["v1", "v2"])
    def group(self, request: pytest.FixtureRequest) -> Iterator[cgroup.Group]:
        found: cgroup.Cgroups | None
        if request.param == "v2":
            found = CgroupsV2(SCOPE, V2_ROOTS[0]) if V2_ROOTS else None
        else:
            found = cgroup.find(SCOPE) if (ROOT / "freezer").is_dir() else None
        if found is None:
            pytest.skip(f"no control groups of {request.param} here")
        group = found.group("1-1")
        group.make(Limits())
        yield group
        group.kill()
        deadline = time.monotonic() + 5
        while not group.remove():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found.close()

    @pytest.fixture
    def ticker(self, group: cgroup.Group) -> Iterator[subprocess.Popen[bytes]]:
        """A process in the group that prints a dot now and then."""
        script = "import time\nwhile True: print('.', flush=True); time.sleep(0.01)"
        group.join()
        try:
            process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        finally:
            group.leave()
        assert process.stdout is not None
        assert process.stdout.readline() == b".\n"
        yield process
        process.kill()
        process.wait()
        process.stdout.close()

    def test_it_finds_its_process_and_not_us(self, group: cgroup.Group, ticker: subprocess.Popen[bytes]) -> None:
        assert group.pids() == [ticker.pid]

    def test_frozen_it_stands_still(self, group: cgroup.Group, ticker: subprocess.Popen[bytes]) -> None:
        assert ticker.stdout is not None
        group.freeze()
        assert group.is_frozen()
        os.set_blocking(ticker.stdout.fileno(), False)
        time.sleep(0.05)
        while ticker.stdout.read():
            pass
        time.sleep(0.1)
        assert not ticker.stdout.read()
        group.thaw()
        assert not group.is_frozen()
        os.set_blocking(ticker.stdout.fileno(), True)
        assert ticker.stdout.readline()

    @pytest.mark.parametrize("frozen", [True, False])
    def test_it_is_killed_frozen_or_not(
        self, group: cgroup.Group, ticker: subprocess.Popen[bytes], frozen: bool
    ) -> None:
        if frozen:
            group.freeze()
        assert not group.remove()
        group.kill()
        assert ticker.wait(5) == -9
        assert group.pids() == []


def test_a_group_that_is_gone_answers_quietly(tmp_path: Path) -> None:
    touch(tmp_path, "cgroup.controllers", "cgroup.procs")
    found = cgroup.find("one", str(tmp_path))
    assert found is not None
    group = found.group("never-made")
    group.freeze()
    group.thaw()
    group.kill()
    assert (group.pids(), group.is_frozen(), group.oom_kills(), group.remove()) == ([], False, 0, True)
    found.close()
    assert not (tmp_path / "kohakuriver").exists()
