"""Nodes and hosts that come and go: what runs goes on, and the truth arrives in the end."""

import time
from datetime import UTC, datetime

import pytest

from tests.cluster.cluster import Cluster, Refused
from tests.cluster.conftest import on_real_machines
from tests.cluster.in_process import FakeCluster
from tests.cluster.rig import Rig


def status_of(cluster: Cluster, node: str) -> str:
    return str(cluster.nodes()[node]["status"])


def statuses(cluster: Cluster, task_id: str) -> list[str]:
    """What a task has been, in order."""
    return [entry["status"] for entry in cluster.history(task_id)]


def test_a_node_tells_what_it_has_and_how_it_feels(cluster: Cluster) -> None:
    cluster.until(lambda: cluster.nodes()["alpha"]["metrics"]["memory_total_bytes"])
    node = cluster.ask("GET", "/api/nodes/alpha")
    assert node["cores"] >= 1 and node["memory_bytes"] > 10**8
    assert 0 < node["metrics"]["memory_used_bytes"] < node["metrics"]["memory_total_bytes"]
    assert node["engine"] == cluster.kind
    assert abs(node["clock_skew_seconds"]) < 5
    health = cluster.ask("GET", "/api/health")
    assert (health["nodes_online"], health["nodes_total"]) == (2, 2)
    cluster.until(lambda: all(len(node["history"]) >= 2 for node in cluster.ask("GET", "/api/health")["nodes"]))


def test_a_task_of_a_lost_node_is_lost_and_found_alive_and_ends_with_its_whole_output(cluster: Cluster) -> None:
    gate = cluster.gate()
    task_id = cluster.shell(f"echo before; {gate.wait}; echo after", targets=["beta"])
    cluster.wait_output(task_id, b"before")
    cluster.wait_for(task_id, "running")
    cluster.runners["beta"].kill()
    task = cluster.wait_for(task_id, "lost")
    assert status_of(cluster, "beta") == "offline"
    assert "beta was silent" in task["error_message"]
    waiting = cluster.begin("true", targets=["beta"])
    cluster.until(lambda: cluster.task(waiting)["reason"] == "beta: offline")
    with pytest.raises(Refused) as refused:
        cluster.output(task_id, patience_seconds=0)
    assert (refused.value.status, refused.value.error["code"]) == (502, "node_unreachable")
    cluster.runners["beta"].start()
    task = cluster.wait_for(task_id, "running")
    assert (task["attempt"], task["error_message"], task["completed_at"]) == (1, None, None)
    gate.open()
    assert cluster.wait(task_id)["status"] == "completed"
    assert cluster.output(task_id) == b"before\nafter\n"
    assert statuses(cluster, task_id) == ["pending", "assigning", "running", "lost", "running", "completed"]
    assert cluster.wait(waiting)["status"] == "completed"


def test_a_task_that_ends_while_its_node_is_away_has_its_true_end(cluster: Cluster) -> None:
    gate = cluster.gate()
    task_id = cluster.shell(f"echo before; {gate.wait}; echo after; exit 9", targets=["beta"])
    cluster.wait_output(task_id, b"before")
    cluster.wait_for(task_id, "running")
    cluster.runners["beta"].kill()
    gate.open()
    time.sleep(0.3)  # for it to end: nobody is there who could tell that it has
    cluster.runners["beta"].start()
    task = cluster.wait(task_id)
    assert (task["status"], task["exit_code"], task["attempt"]) == ("failed", 9, 1)
    assert cluster.output(task_id) == b"before\nafter\n"


def test_a_lost_task_that_may_be_tried_again_is_and_its_older_try_is_ended(cluster: Cluster) -> None:
    gate, last = cluster.gate(), cluster.gate()
    script = f'echo "try $KOHAKURIVER_ATTEMPT"; {gate.wait}; {last.wait}'
    task_id = cluster.shell(script, max_attempts=2, required_cores=1)
    node = cluster.wait_for(task_id, "running")["assigned_node"]
    cluster.wait_output(task_id, b"try 1")
    cluster.runners[node].kill()
    cluster.until(lambda: cluster.task(task_id)["attempt"] == 2)
    other = cluster.wait_for(task_id, "running")["assigned_node"]
    assert {node, other} == {"alpha", "beta"}
    cluster.runners[node].start()
    cluster.until(lambda: status_of(cluster, node) == "online")
    assert cluster.task(task_id)["attempt"] == 2
    cluster.order(task_id, "kill")
    assert cluster.wait(task_id)["status"] == "killed"
    cluster.until(lambda: nothing_runs(cluster))


def nothing_runs(cluster: Cluster) -> bool:
    """Whether no task is left on any node, known or fenced off."""
    if isinstance(cluster, FakeCluster):
        return not any(machine.workloads for machine in cluster.machines.values())
    assert isinstance(cluster, Rig)
    states = [cluster.folder / name for name in cluster.runners]
    return not any(found for state in states for found in (state / "started").glob("*"))


def test_tasks_that_end_while_the_host_is_away_are_told_when_it_comes_back(cluster: Cluster) -> None:
    gate = cluster.gate()
    ends = cluster.shell(f"{gate.wait}; echo done; exit 4", targets=["alpha"])
    fails_later = cluster.shell("sleep 0.3; echo late >&2; false", targets=["beta"])
    cluster.wait_for(ends, "running")
    cluster.wait_for(fails_later, "running", "failed")
    cluster.host.kill()
    gate.open()
    time.sleep(1.0)
    back_at = datetime.now(UTC)
    cluster.host.start()
    task = cluster.wait(ends)
    assert (task["status"], task["exit_code"], task["attempt"]) == ("failed", 4, 1)
    assert datetime.fromisoformat(task["completed_at"]) < back_at
    assert cluster.output(ends) == b"done\n"
    assert (cluster.wait(fails_later)["exit_code"], cluster.output(fails_later, "stderr")) == (1, b"late\n")
    assert "lost" not in statuses(cluster, ends)


def test_what_waits_in_the_queue_outlives_the_host(cluster: Cluster) -> None:
    cluster.ask("POST", "/api/nodes/alpha/drain", {"reason": "for the test"})
    waiting = [cluster.begin("echo", str(n), targets=["alpha"]) for n in range(3)]
    cluster.host.kill()
    cluster.host.start()
    assert cluster.nodes()["alpha"]["drain_reason"] == "for the test"
    assert [cluster.task(task_id)["status"] for task_id in waiting] == ["pending"] * 3
    cluster.ask("POST", "/api/nodes/alpha/resume")
    assert [cluster.wait(task_id)["status"] for task_id in waiting] == ["completed"] * 3
    assert [cluster.output(task_id) for task_id in waiting] == [b"0\n", b"1\n", b"2\n"]


def test_a_runner_that_starts_before_its_host_joins_when_that_comes(cluster: Cluster) -> None:
    cluster.runners["alpha"].stop()
    cluster.host.stop()
    cluster.runners["alpha"].start()
    time.sleep(0.5)
    assert cluster.runners["alpha"].alive, "it waits for its host"
    cluster.host.start()
    cluster.until(lambda: status_of(cluster, "alpha") == "online")
    assert cluster.run("echo", "here", targets=["alpha"])["status"] == "completed"


def test_a_second_runner_of_one_name_does_not_get_in_while_the_first_lives(cluster: Cluster) -> None:
    before = cluster.nodes()["alpha"]["url"]
    assert isinstance(cluster, FakeCluster | Rig)
    twin = cluster.make_twin("alpha")
    twin.start()
    try:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            node = cluster.nodes()["alpha"]
            assert (node["url"], node["status"]) == (before, "online")
            time.sleep(0.1)
        task = cluster.run("echo", "still here", targets=["alpha"])
        assert (task["status"], cluster.output(task["task_id"])) == ("completed", b"still here\n")
    finally:
        twin.stop()


@on_real_machines
def test_a_second_runner_of_one_name_says_in_its_log_who_is_in_its_place(cluster: Rig) -> None:
    url = cluster.nodes()["alpha"]["url"]
    twin = cluster.make_twin("alpha")
    twin.start()
    try:
        cluster.until(lambda: f"another runner named alpha is alive at {url}" in twin.log.read_text())
    finally:
        twin.stop()


def test_a_node_can_be_forgotten_only_when_it_is_gone_and_comes_back_when_it_does(cluster: Cluster) -> None:
    with pytest.raises(Refused) as refused:
        cluster.ask("DELETE", "/api/nodes/beta")
    assert refused.value.status == 409
    cluster.runners["beta"].stop()
    cluster.until(lambda: status_of(cluster, "beta") == "offline")
    cluster.ask("DELETE", "/api/nodes/beta")
    assert set(cluster.nodes()) == {"alpha"}
    cluster.runners["beta"].start()
    cluster.until(lambda: cluster.online() == {"alpha", "beta"})
    assert cluster.run("true", targets=["beta"])["status"] == "completed"
