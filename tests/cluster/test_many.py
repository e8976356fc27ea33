"""Many hosts and runners in one process: nothing is shared by accident, and no task runs twice."""

from contextlib import ExitStack
from pathlib import Path

from tests.cluster.conftest import running_fake
from tests.cluster.in_process import FakeCluster

NODES = tuple(f"n{number}" for number in range(9))
TASKS = 60


def script(cluster: FakeCluster, number: int, wait: str) -> str:
    return f"{wait}; echo {cluster.folder.name} {number}; exit {number % 4}"


def check(cluster: FakeCluster, number: int, task_id: str) -> str:
    """How a task ended is how it had to; the node that it ran on."""
    task = cluster.wait(task_id)
    assert (task["exit_code"], task["attempt"]) == (number % 4, 1)
    assert cluster.output(task_id) == f"{cluster.folder.name} {number}\n".encode()
    return str(task["assigned_node"])


def test_two_hosts_with_nine_runners_each_live_in_one_process(tmp_path: Path) -> None:
    with ExitStack() as stack:
        clusters = []
        for name in ("left", "right"):
            (tmp_path / name).mkdir()
            clusters.append(stack.enter_context(running_fake(tmp_path / name, NODES)))
        gates = [cluster.gate() for cluster in clusters]  # so that the first ones take every core of every node
        asked = [
            (cluster, number, cluster.shell(script(cluster, number, gate.wait), required_cores=1))
            for number in range(TASKS)
            for cluster, gate in zip(clusters, gates, strict=True)
        ]
        for cluster, gate in zip(clusters, gates, strict=True):
            cluster.until(lambda cluster=cluster: cluster.ask("GET", "/api/health")["cores_free"] == 0)  # type: ignore[misc]
            gate.open()
        used = {check(*each) for each in asked}
        assert used == set(NODES), "work is spread"
        for cluster in clusters:
            executions = [count for machine in cluster.machines.values() for count in machine.executions.values()]
            assert executions == [1] * TASKS
            assert len(cluster.ask("GET", f"/api/tasks?limit={2 * TASKS}")) == TASKS


def test_the_death_of_every_second_runner_loses_no_task(tmp_path: Path) -> None:
    with running_fake(tmp_path, NODES) as cluster:
        gate = cluster.gate()
        asked = [cluster.shell(f"{gate.wait}; echo {n}", required_cores=1) for n in range(2 * len(NODES))]
        for task_id in asked:
            cluster.wait_for(task_id, "running")
        for name in NODES[::2]:
            cluster.runners[name].kill()
        gate.open()
        for name in NODES[::2]:
            cluster.runners[name].start()
        for number, task_id in enumerate(asked):
            task = cluster.wait(task_id)
            assert (task["status"], task["attempt"], cluster.output(task_id)) == ("completed", 1, b"%d\n" % number)
        assert all(count == 1 for machine in cluster.machines.values() for count in machine.executions.values())
