"""What a made-up /proc shows of a container whose start the daemon did not live to remember."""

import socket
import subprocess
import time
from pathlib import Path

import pytest

from kohakuriver.system.docker_orphans import Fate, Orphan, daemon_started_at, end_orphan, find_orphan

SHIM = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", "c1", "-address", "/run/x.sock"]


def process(proc: Path, pid: int, parent: int, words: list[str]) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes("\0".join(words).encode())
    (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0")


def test_nothing_is_there_of_a_container_without_a_shim(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, SHIM[:4] + ["another"])
    process(tmp_path, 11, 1, ["vi", "c1"])
    assert find_orphan("c1", tmp_path) == Orphan(Fate.ABSENT)


@pytest.mark.parametrize("words", [["runc", "init", ""], ["/usr/sbin/runc", "--root", "/run", "create"]])
def test_a_container_that_is_still_runc_has_not_begun(tmp_path: Path, words: list[str]) -> None:
    process(tmp_path, 10, 1, SHIM)
    process(tmp_path, 11, 10, words)
    assert find_orphan("c1", tmp_path) == Orphan(Fate.PREPARED, (11, 10))


def test_a_container_whose_program_runs_has_begun(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, SHIM)
    process(tmp_path, 11, 10, ["/sbin/docker-init", "--", "true"])
    assert find_orphan("c1", tmp_path) == Orphan(Fate.BEGUN, (11, 10))


def test_a_container_whose_shim_is_alone_has_begun_and_ended(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, SHIM)
    assert find_orphan("c1", tmp_path).fate is Fate.BEGUN


def test_processes_that_end_while_they_are_looked_at_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    assert find_orphan("c1", tmp_path).fate is Fate.ABSENT


def test_what_is_left_of_an_orphan_is_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        end_orphan(Orphan(Fate.BEGUN, (sleeper.pid, 2**22 + 1)))
        assert sleeper.wait(10) == -9


def test_a_daemon_started_when_its_process_did(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        started = daemon_started_at(path)
    assert started is not None and 0 <= time.time() - started < 24 * 3600
    assert daemon_started_at(str(tmp_path / "none")) is None
