"""`kohakuriver dev`: a cluster that is quickly there, does real work, and leaves nothing behind however it ends."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker_daemon import Daemon, docker_daemon

__all__ = ["docker_daemon"]
TOP = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0
ANY_PORT = ("--port", "0")


@dataclass(frozen=True)
class Dev:
    """A running `kohakuriver dev`, and the shell beside it into which its lines are pasted."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    said: list[str]

    def kohakuriver(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kohakuriver", *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )

    def submit(self, *words: str) -> str:
        ended = self.kohakuriver("task", "submit", *words)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.strip()

    def until(self, task_id: str, status: str) -> None:
        until(lambda: self.status(task_id) == status, status)

    def status(self, task_id: str) -> str:
        """What its host says of a task; asked again and again, so without a program that is started for it."""
        at = "http://{KOHAKURIVER_HOST}:{KOHAKURIVER_PORT}/api/tasks/".format(**self.environment)
        with urllib.request.urlopen(at + task_id, timeout=PATIENCE_SECONDS) as answer:
            found: str = json.load(answer)["status"]
            return found

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Its exit code and what it said last, after this signal."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, rest


def until(holds: object, what: str) -> None:
    assert callable(holds)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up, f"never came true: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def running(*words: str, environment: dict[str, str]) -> Iterator[Dev]:
    """A cluster that has said how to reach it, or has ended before; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kohakuriver", "dev", *ANY_PORT, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = list(until_ready(process))
        exported = dict(re.findall(r"(KOHAKURIVER_\w+)=(\S+)", "\n".join(line for line in said if "export" in line)))
        yield Dev(process, environment | exported, said)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def until_ready(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout
    for line in process.stdout:
        yield line.rstrip("\n")
        if line.startswith("Ctrl-C takes everything away"):
            return


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "t").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    no_docker = {"KOHAKURIVER_DOCKER_SOCKET": str(tmp_path / "no-docker.sock")}
    return kept | no_docker | {"PYTHONPATH": str(TOP), "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "t")}


def processes(word: str) -> list[int]:
    """Processes that have this word on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def test_what_it_prints_can_be_pasted_and_works(environment: dict[str, str]) -> None:
    with running("--nodes", "3", environment=environment) as dev:
        told = "\n".join(dev.said)
        assert "no Docker daemon answers on" in dev.said[0] and "plain processes" in dev.said[0]
        assert "3 nodes ready after" in told and "engine process" in told
        lines = "\n".join(line for line in dev.said if line.startswith("  ")).replace("python3", sys.executable)
        assert lines.count("\n") == 1
        pasted = subprocess.run(
            ["sh", "-c", lines], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert pasted.returncode == 0, pasted.stderr
        assert dev.kohakuriver("task", "logs", pasted.stdout.strip()).stdout == "hello\n"
        names = [line.split()[0] for line in dev.kohakuriver("node", "list").stdout.splitlines()]
        assert names == ["NODE", "node1", "node2", "node3"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_everything_away(number: signal.Signals, environment: dict[str, str]) -> None:
    word = f"6000.{os.getpid()}{int(number)}"
    with running(environment=environment) as dev:
        dev.until(dev.submit("--", "sleep", word), "running")
        assert processes(word)
        code, rest = dev.end(number)
        assert (code, rest.strip()) == (128 + number, "stopping: what the nodes run is killed and removed")
        assert not processes(word)
        assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_what_a_killed_one_left_is_taken_away_by_the_next(environment: dict[str, str]) -> None:
    word = f"6001.{os.getpid()}"
    with running(environment=environment) as dev:
        dev.until(dev.submit("--", "sleep", word), "running")
        dev.end(signal.SIGKILL)
    assert processes(word)
    (left,) = Path(environment["TMPDIR"]).iterdir()
    with running(environment=environment) as dev:
        assert f"cleared what a killed dev cluster had left in {left}" in dev.said
        assert not processes(word) and not left.exists()


def test_a_directory_that_was_asked_for_keeps_what_was_done(environment: dict[str, str], tmp_path: Path) -> None:
    words = ("--dir", str(tmp_path / "kept"), "--nodes", "1")
    with running(*words, environment=environment) as dev:
        task_id = dev.submit("--wait", "--", "echo", "still here")
        second = subprocess.run(
            [sys.executable, "-m", "kohakuriver", "dev", *ANY_PORT, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert second.returncode == 5 and "another dev cluster uses" in second.stderr
    with running(*words, environment=environment) as dev:
        assert dev.kohakuriver("task", "logs", task_id).stdout == "still here\n"


def test_docker_that_was_asked_for_and_is_not_there_is_an_error(environment: dict[str, str]) -> None:
    with running("--engine", "docker", environment=environment) as dev:
        assert dev.process.wait(PATIENCE_SECONDS) == 1
        assert len(dev.said) == 1 and dev.said[0].startswith("kohakuriver: no Docker daemon answers on")


@pytest.mark.parametrize("words", [("--nodes", "0"), ("--nodes", "33"), ("--port", "70000"), ("--engine", "podman")])
def test_what_it_cannot_do_is_a_usage_error(words: tuple[str, ...], environment: dict[str, str]) -> None:
    with running(*words, environment=environment) as dev:
        assert dev.process.wait(PATIENCE_SECONDS) == 2


@pytest.mark.docker
def test_containers_go_with_the_cluster_and_with_the_next_one_after_a_kill(
    environment: dict[str, str], docker_daemon: Daemon
) -> None:
    environment["KOHAKURIVER_DOCKER_SOCKET"] = docker_daemon.socket
    for number in (signal.SIGINT, signal.SIGKILL):
        with running(environment=environment) as dev:
            assert "engine docker" in dev.said[0]
            dev.until(dev.submit("--", "sleep", "6002"), "running")
            assert len(docker_daemon.containers()) == 1
            dev.end(number)
        assert len(docker_daemon.containers()) == (1 if number == signal.SIGKILL else 0)
    with running(environment=environment) as dev:
        assert dev.said[0].startswith("cleared what a killed dev cluster had left")
        assert docker_daemon.containers() == []
