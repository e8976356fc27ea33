"""Output while it is being written: by tail, by offset, followed at once, through every break."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import client_env, on_real_machines
from tests.cluster.rig import Rig

FOLLOW_SECONDS = 0.3
PIECES = 5


def read_all(cluster: Cluster, task_id: str, query: str = "") -> bytes:
    """Everything that following a task gives, to its end."""
    with cluster.following(task_id, query) as more:
        return b"".join(iter(more, b""))


def test_output_can_be_read_while_it_is_written(cluster: Cluster) -> None:
    gate = cluster.gate()
    task_id = cluster.shell(f"echo one; echo two; {gate.wait}; echo three")
    cluster.wait_output(task_id, b"two\n")
    assert cluster.output(task_id) == b"one\ntwo\n"
    assert cluster.output(task_id, query="?lines=1") == b"two\n"
    assert cluster.output(task_id, query="?offset=2") == b"e\ntwo\n"
    cluster.until(lambda: cluster.task(task_id)["stdout_bytes"] == 8)
    gate.open()
    assert cluster.wait(task_id)["stdout_bytes"] == 14


@pytest.mark.parametrize("node", ["alpha", "beta"])
def test_who_follows_sees_each_piece_at_once_and_then_the_end(cluster: Cluster, node: str) -> None:
    gates = [cluster.gate() for _ in range(PIECES)]
    task_id = cluster.shell("echo ready; " + "; ".join(f"{gate.wait}; echo piece" for gate in gates), targets=[node])
    delays = []
    with cluster.following(task_id) as more:
        assert more() == b"ready\n"
        for gate in gates:
            gate.open()
            passed_at = time.monotonic()
            assert more() == b"piece\n"
            delays.append(time.monotonic() - passed_at)
        assert more() == b""
    assert cluster.wait(task_id)["status"] == "completed"
    assert statistics.median(delays) < FOLLOW_SECONDS, delays


def test_what_is_followed_from_an_offset_or_a_tail_lacks_nothing(cluster: Cluster) -> None:
    gate = cluster.gate()
    task_id = cluster.shell(f"echo one; echo two; {gate.wait}; echo three")
    cluster.wait_output(task_id, b"two\n")
    with cluster.following(task_id, "&lines=1") as tail, cluster.following(task_id, "&offset=4") as rest:
        assert tail() == b"two\n"
        assert rest() == b"two\n"
        gate.open()
        assert b"".join(iter(tail, b"")) == b"".join(iter(rest, b"")) == b"three\n"
    assert read_all(cluster, task_id) == b"one\ntwo\nthree\n"


def test_a_task_can_be_followed_before_it_has_a_place(cluster: Cluster) -> None:
    cluster.ask("POST", "/api/nodes/alpha/drain", {})
    task_id = cluster.begin("echo", "at last", targets=["alpha"])
    with cluster.following_soon(task_id) as answer:
        cluster.ask("POST", "/api/nodes/alpha/resume")
        assert answer() == b"at last\n"


def test_a_stream_that_is_broken_by_a_runners_death_does_not_look_complete(cluster: Cluster) -> None:
    gate = cluster.gate()
    task_id = cluster.shell(f"echo before; {gate.wait}; echo after", targets=["beta"])
    with cluster.following(task_id) as more:
        assert more() == b"before\n"
        cluster.runners["beta"].kill()
        with pytest.raises((OSError, Exception), match="IncompleteRead|reset"):
            more()
    cluster.runners["beta"].start()
    cluster.until(lambda: cluster.online() == {"alpha", "beta"})
    gate.open()
    assert cluster.wait(task_id)["status"] == "completed"
    assert read_all(cluster, task_id, "&offset=7") == b"after\n"


def test_output_in_shared_storage_is_readable_when_its_node_is_gone(cluster: Cluster) -> None:
    ended = cluster.run("printf", "one\\ntwo\\n", targets=["alpha"])["task_id"]
    gate = cluster.gate()
    running = cluster.shell(f"echo half; {gate.wait}; echo whole", targets=["alpha"])
    cluster.wait_output(running, b"half\n")
    cluster.runners["alpha"].kill()
    cluster.until(lambda: cluster.nodes()["alpha"]["status"] == "offline")
    assert cluster.output(ended, patience_seconds=0) == b"one\ntwo\n"
    assert cluster.output(ended, query="?lines=1", patience_seconds=0) == b"two\n"
    assert cluster.output(running, patience_seconds=0) == b"half\n"
    cluster.runners["alpha"].start()
    cluster.wait_for(running, "running")
    gate.open()
    cluster.wait(running)
    assert cluster.output(running) == b"half\nwhole\n"


@on_real_machines
def test_the_client_goes_on_following_when_the_host_was_killed_and_came_back(
    cluster: Rig, pyz: Path, tmp_path: Path
) -> None:
    gates = [cluster.gate() for _ in range(3)]
    pieces = [f"echo piece {n}; {gate.wait}" for n, gate in enumerate(gates)]
    task_id = cluster.shell("; ".join([*pieces, "echo the end"]))
    command = [sys.executable, str(pyz), "task", "logs", "-f", task_id]
    env = client_env(cluster, tmp_path)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"piece 0\n"
        cluster.host.kill()
        gates[0].open()
        cluster.host.start()
        assert client.stdout.readline() == b"piece 1\n"
        cluster.host.kill()
        cluster.host.start()
        for gate in gates[1:]:
            gate.open()
        rest, said = client.communicate(timeout=60)
    assert (rest, client.returncode) == (b"piece 2\nthe end\n", 0), said
