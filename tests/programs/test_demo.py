"""`kohakuriver demo`: a tour that shows what it says, ends in time, and fails when something is not as it should be."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kohakuriver.model.settings import ClientSettings
from kohakuriver.programs import demo
from kohakuriver.programs.demo import Guide, NotAsShown
from kohakuriver.programs.dev_cluster import DevCluster
from tests.docker_daemon import Daemon, docker_daemon

__all__ = ["docker_daemon"]
TOP = Path(__file__).resolve().parents[2]
NOWHERE = DevCluster("http://127.0.0.1:9", ("node1", "node2"), "process")
STEPS = [
    demo.the_nodes,
    demo.a_task,
    demo.a_live_log,
    demo.one_that_fails,
    demo.one_that_is_killed,
    demo.the_totals,
]


def take_the_tour(tmp_path: Path, docker_socket: str) -> str:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "kohakuriver", "demo"],
        env=environment | {"KOHAKURIVER_DOCKER_SOCKET": docker_socket},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
    assert time.monotonic() - began < 60  # half of that where nothing else runs
    assert list(tmp_path.iterdir()) == []
    return ended.stdout


def test_the_tour_shows_every_step_with_the_commands_that_people_type(tmp_path: Path) -> None:
    told = take_the_tour(tmp_path, "/nonexistent/docker.sock")
    assert "plain processes of this machine" in told
    for number in range(1, 8):
        assert f"\n{number}. " in told
    for command in ("node list", "task submit", "task logs -f", "task kill", "task wait", "node summary", "task list"):
        assert f"  $ kohakuriver {command}" in told
    assert "    node1: 2 cores asked" not in told.partition("6. ")[0]
    assert " cores asked, 0 free" in told.partition("6. ")[2] or "core asked" in told.partition("6. ")[2]


@pytest.mark.docker
def test_the_tour_runs_on_docker_when_there_is_one(tmp_path: Path, docker_daemon: Daemon) -> None:
    told = take_the_tour(tmp_path, docker_daemon.socket)
    assert "plain processes" not in told
    assert docker_daemon.containers() == []


@pytest.mark.parametrize("step", STEPS, ids=[step.__name__ for step in STEPS])
def test_a_step_that_shows_nothing_is_noticed(step: object) -> None:
    guide = Guide(("/bin/true",), {}, ClientSettings(port=9), lambda text: None)
    assert callable(step)
    with pytest.raises(Exception) as noticed:
        asyncio.run(step(guide, NOWHERE))
    assert isinstance(noticed.value, NotAsShown) or step is demo.the_totals  # which asks the host first


def test_a_command_that_exits_otherwise_is_noticed() -> None:
    heard: list[str] = []
    guide = Guide(("/bin/sh", "-c", "echo wrong; exit 1", "sh"), {}, ClientSettings(), heard.append)
    with pytest.raises(NotAsShown, match="`kohakuriver node list` exits with 0, not 1"):
        asyncio.run(guide.show("node", "list"))
    assert heard == ["  $ kohakuriver node list", "    wrong"]


def test_a_live_log_that_comes_all_at_once_is_noticed() -> None:
    lines = "".join(f"step {n} of {demo.STEPS}\\n" for n in range(1, demo.STEPS + 1))
    script = f"""if [ "$2" = submit ]; then echo 1; else printf '{lines}'; fi"""
    guide = Guide(("/bin/sh", "-c", script, "sh"), {}, ClientSettings(), lambda text: None)
    with pytest.raises(NotAsShown, match="lines arrive one by one"):
        asyncio.run(demo.a_live_log(guide, NOWHERE))


def test_a_tour_that_is_stopped_cleans_up_too(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "kohakuriver", "demo", "--engine", "process"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stderr
        while not child.stdout.readline().startswith("3. "):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "")
    assert list(tmp_path.iterdir()) == []
