"""Full disks, daemons that stop, leftovers of others: nothing is lost, and nothing of anybody else's is touched."""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import Refused
from tests.cluster.conftest import FAST_HOST, PROCESS, await_nothing_left, on_docker
from tests.cluster.rig import Rig
from tests.docker_daemon import IMAGE, Daemon

SMALL_DISK_BYTES = 4_000_000


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of its own at that place."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES},mode=700", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    """Leave no room at all; the file to delete for it."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return filler


@pytest.mark.artifact
def test_a_host_whose_disk_is_full_refuses_clearly_and_goes_on_when_there_is_room(pyz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with small_disk(folder / "host") as disk:
        rig = Rig(pyz, folder, host_env=FAST_HOST)
        rig.add_runner("alpha", PROCESS)
        try:
            rig.start()
            before = rig.run("echo", "before")
            gate = rig.gate()
            running = rig.shell(f"{gate.wait}; echo meanwhile; exit 3")
            rig.wait_for(running, "running")
            filler = fill(disk)
            refused = refuse_submits(rig)
            assert (refused.status, refused.error["code"]) == (507, "store_unavailable")
            assert "nothing was changed" in refused.error["message"]
            assert rig.task(before["task_id"])["status"] == "completed", "reading goes on"
            gate.open()
            time.sleep(0.5)
            assert rig.online() == {"alpha"}, "and so do heartbeats"
            filler.unlink()
            task = rig.wait(running)
            assert (task["status"], task["exit_code"], rig.output(running)) == ("failed", 3, b"meanwhile\n")
            assert rig.run("echo", "after")["status"] == "completed"
            assert {each["status"] for each in rig.ask("GET", "/api/tasks")} == {"completed", "failed"}
        finally:
            rig.stop()
        with closing(sqlite3.connect(disk / "host.db")) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    await_nothing_left(rig)


def refuse_submits(rig: Rig) -> Refused:
    """Submit until the last room of the disk is used up."""
    with pytest.raises(Refused) as refused:
        for _ in range(200):
            rig.begin("true", "x" * 100_000, targets=["alpha"])
    return refused.value


def stop_gently(daemon: Daemon) -> None:
    """As a service manager stops it; containers go on."""
    daemon.process.terminate()
    daemon.process.wait(30)


@on_docker
def test_tasks_survive_a_daemon_that_is_stopped_and_started_again(cluster: Rig, docker_daemon: Daemon) -> None:
    cores = int(cluster.nodes()["alpha"]["cores"])
    while_away, end_while_away, last = (cluster.gate() for _ in range(3))
    script = f"echo one; {while_away.wait}; echo two; {last.wait}; echo three; exit 3"
    running = cluster.shell(script, targets=["alpha"], required_cores=cores)
    ends_meanwhile = cluster.shell(f"echo one; {end_while_away.wait}; echo last words; exit 4", targets=["beta"])
    for task_id in (running, ends_meanwhile):
        cluster.wait_output(task_id, b"one\n")
    queued = [cluster.begin("echo", str(n), targets=["alpha"], required_cores=1) for n in range(2)]
    stop_gently(docker_daemon)
    try:
        while_away.open()
        end_while_away.open()
        queued += [cluster.begin("echo", str(n), targets=["alpha"], required_cores=1) for n in range(2, 4)]
        task = cluster.wait(ends_meanwhile)  # its end is known without the daemon
        assert (task["status"], task["exit_code"], task["attempt"]) == ("failed", 4, 1)
        assert cluster.output(ends_meanwhile) == b"one\nlast words\n"
    finally:
        docker_daemon.restart()
    last.open()
    task = cluster.wait(running)
    assert (task["status"], task["exit_code"], task["attempt"]) == ("failed", 3, 1)
    assert cluster.output(running) == b"one\ntwo\nthree\n"
    for number, task_id in enumerate(queued):
        assert cluster.wait(task_id)["status"] == "completed"
        assert cluster.output(task_id) == b"%d\n" % number


@on_docker
def test_a_node_whose_daemon_is_away_says_so(cluster: Rig, docker_daemon: Daemon) -> None:
    stop_gently(docker_daemon)
    try:
        cluster.until(lambda: "does not answer" in "".join(cluster.nodes()["alpha"]["warnings"]))
    finally:
        docker_daemon.restart()
    cluster.until(lambda: cluster.nodes()["alpha"]["warnings"] == [])


def add_container(daemon: Daemon, name: str, labels: dict[str, str]) -> str:
    """A container that runs, made behind everybody's back; its id."""
    asked = {"Image": IMAGE, "Cmd": ["sleep", "600"], "Labels": labels, "HostConfig": {"Init": True}}
    made = daemon.request("POST", "/containers/create", asked, {"name": name})["Id"]
    daemon.request("POST", f"/containers/{made}/start")
    return str(made)


@on_docker
def test_leftovers_of_ours_are_removed_and_nothing_else_is_touched(cluster: Rig, docker_daemon: Daemon) -> None:
    ours = {"kohakuriver.cluster": cluster.ask("GET", "/api/health")["cluster_id"], "kohakuriver.type": "command"}
    stray = {"kohakuriver.task": "12345", "kohakuriver.attempt": "1"}
    foreign = {
        add_container(docker_daemon, "somebodys", {}),
        add_container(docker_daemon, "kohakuriver-task-1", {}),
        add_container(
            docker_daemon, "other", {**ours, **stray, "kohakuriver.cluster": "other", "kohakuriver.node": "alpha"}
        ),
        add_container(docker_daemon, "elsewhere", {**ours, **stray, "kohakuriver.node": "gamma"}),
    }
    try:
        leftover = add_container(
            docker_daemon, "kohakuriver-task-12345", {**ours, **stray, "kohakuriver.node": "alpha"}
        )
        cluster.until(lambda: leftover not in ids(docker_daemon))
        for runner in cluster.runners.values():  # at its start, too, a runner looks for leftovers
            runner.stop()
            runner.start()
        cluster.until(lambda: cluster.online() == {"alpha", "beta"})
        assert cluster.run("true", targets=["alpha"])["status"] == "completed"
        assert {each["Id"] for each in docker_daemon.containers() if each["State"] == "running"} >= foreign
    finally:
        for container in foreign:
            docker_daemon.request("DELETE", f"/containers/{container}", query={"force": "1"})


def ids(daemon: Daemon) -> set[str]:
    return {each["Id"] for each in daemon.containers()}


@on_docker
def test_a_container_removed_by_somebody_else_is_no_riddle_for_ever(cluster: Rig, docker_daemon: Daemon) -> None:
    task_id = cluster.shell("echo here; sleep 600")
    cluster.wait_output(task_id, b"here")
    docker_daemon.request("DELETE", f"/containers/kohakuriver-task-{task_id}", query={"force": "1"})
    task = cluster.wait(task_id)
    assert task["status"] == "failed"
    assert task["exit_code"] == 137 or "vanished" in task["error_message"]
