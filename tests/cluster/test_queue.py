"""What does not fit waits, says why, and starts by itself when there is room."""

import pytest

from tests.cluster.cluster import Cluster, Gate, Json, Refused
from tests.cluster.conftest import FAKE_KIND, on
from tests.cluster.in_process import FakeCluster


def cores_of(cluster: Cluster) -> dict[str, int]:
    return {name: int(node["cores"]) for name, node in cluster.nodes().items()}


def occupy(cluster: Cluster, node: str, cores: int = 0) -> tuple[str, Gate]:
    """A task that has the cores of a node (all of them unless told otherwise) until its gate is opened."""
    gate = cluster.gate()
    task_id = cluster.shell(gate.wait, targets=[node], required_cores=cores or cores_of(cluster)[node])
    cluster.wait_for(task_id, "running")
    return task_id, gate


def test_what_does_not_fit_waits_with_a_reason_for_each_node_and_starts_by_itself(cluster: Cluster) -> None:
    cores = cores_of(cluster)
    gates = {node: occupy(cluster, node)[1] for node in cores}
    waiting = cluster.begin("echo", "at last", required_cores=1)
    cluster.until(lambda: "free" in (cluster.task(waiting)["reason"] or ""))
    task = cluster.task(waiting)
    assert task["status"] == "pending"
    assert task["reason"].splitlines() == [f"{node}: 1 cores asked, 0 free" for node in ("alpha", "beta")]
    gates["beta"].open()
    task = cluster.wait(waiting)
    assert (task["status"], task["assigned_node"], task["reason"]) == ("completed", "beta", None)
    gates["alpha"].open()


def test_a_task_waits_for_the_node_it_names_though_another_is_free(cluster: Cluster) -> None:
    _, gate = occupy(cluster, "alpha")
    waiting = cluster.begin("true", targets=["alpha"], required_cores=1)
    elsewhere = cluster.run("true", required_cores=1)
    assert (elsewhere["status"], elsewhere["assigned_node"]) == ("completed", "beta")
    assert cluster.task(waiting)["reason"] == "alpha: 1 cores asked, 0 free"
    gate.open()
    assert cluster.wait(waiting)["assigned_node"] == "alpha"


def test_what_can_never_fit_says_so_and_still_waits(cluster: Cluster) -> None:
    cores = cores_of(cluster)["alpha"]
    task_id = cluster.begin("true", required_cores=4096)
    cluster.until(lambda: "ever" in (cluster.task(task_id)["reason"] or ""))
    told = cluster.task(task_id)["reason"].splitlines()
    assert told[0] == "no registered node can ever run it"
    assert told[1] == f"alpha: 4096 cores asked, it has {cores}"


def test_a_node_that_nobody_knows_is_refused_by_name(cluster: Cluster) -> None:
    with pytest.raises(Refused) as refused:
        cluster.submit_all("true", targets=["alpha", "nowhere"])
    assert refused.value.status == 400
    assert refused.value.error["message"] == "targets[1]: no node 'nowhere' is registered"


def test_what_matters_more_goes_first_and_equals_in_the_order_they_came(cluster: Cluster) -> None:
    _, gate = occupy(cluster, "alpha")
    whole: Json = {"targets": ["alpha"], "required_cores": cores_of(cluster)["alpha"]}
    asked = {
        name: cluster.begin("true", priority=priority, **whole)
        for name, priority in (("early", 0), ("late", 0), ("least", -5), ("most", 5))
    }
    gate.open()
    started = {name: cluster.wait(task_id)["started_at"] for name, task_id in asked.items()}
    assert sorted(started, key=lambda name: started[name]) == ["most", "early", "late", "least"]


def test_a_big_task_is_not_starved_by_small_ones_behind_it(cluster: Cluster) -> None:
    cores = cores_of(cluster)["alpha"]
    if cores < 2:
        pytest.fail("this machine has one core: nothing is small here")
    first, second = occupy(cluster, "alpha", 1), occupy(cluster, "alpha", cores - 1)
    big = cluster.begin("true", targets=["alpha"], required_cores=cores)
    small = [cluster.begin("true", targets=["alpha"], required_cores=1) for _ in range(3)]
    first[1].open()
    cluster.wait(first[0])
    cluster.until(lambda: cluster.nodes()["alpha"]["cores_free"] == 1)
    held = f"alpha: held for task {big}, which waits longer"
    cluster.until(lambda: cluster.task(small[0])["reason"] == held)
    second[1].open()
    ended = cluster.wait(big)["completed_at"]
    assert all(cluster.wait(task_id)["started_at"] >= ended for task_id in small)


def test_several_targets_make_one_task_each_in_one_batch(cluster: Cluster) -> None:
    task_ids = cluster.submit_all("sh", "-c", "echo $KOHAKURIVER_NODE", targets=["alpha", "beta", "alpha"])
    tasks = [cluster.wait(task_id) for task_id in task_ids]
    assert [task["assigned_node"] for task in tasks] == ["alpha", "beta", "alpha"]
    assert {task["batch_id"] for task in tasks} == {task_ids[0]}
    assert [cluster.output(task_id) for task_id in task_ids] == [b"alpha\n", b"beta\n", b"alpha\n"]


def test_one_key_is_one_submit_however_often_it_is_sent(cluster: Cluster) -> None:
    body: Json = {"command": "true", "required_cores": 0, "idempotency_key": f"key-of-{cluster.kind}-{cluster.port}"}
    answers = [cluster.ask("POST", "/api/tasks", body) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    with pytest.raises(Refused) as refused:
        cluster.ask("POST", "/api/tasks", {**body, "command": "false"})
    assert refused.value.status == 409
    assert cluster.wait(answers[0]["task_ids"][0])["status"] == "completed"


def test_a_draining_node_keeps_what_it_has_and_gets_nothing_new(cluster: Cluster) -> None:
    running, gate = occupy(cluster, "alpha", 1)
    node = cluster.ask("POST", "/api/nodes/alpha/drain", {"reason": "new disk"})
    assert (node["draining"], node["drain_reason"], node["tasks_running"]) == (True, "new disk", 1)
    waiting = cluster.begin("true", targets=["alpha"])
    assert cluster.run("true", required_cores=1)["assigned_node"] == "beta"
    assert cluster.task(waiting)["reason"] == "alpha: draining (new disk)"
    gate.open()
    assert cluster.wait(running)["status"] == "completed"
    assert cluster.task(waiting)["status"] == "pending"
    assert cluster.ask("POST", "/api/nodes/alpha/resume")["draining"] is False
    assert cluster.wait(waiting)["assigned_node"] == "alpha"


@on(FAKE_KIND)
def test_no_gpu_is_given_twice_whether_counted_or_named(cluster: FakeCluster) -> None:
    gate = cluster.gate()
    one = cluster.shell(gate.wait, required_gpus=1, targets=["alpha"])
    assert cluster.wait_for(one, "running")["assigned_gpus"] == [0]
    other = cluster.shell(gate.wait, required_gpus=[1], targets=["alpha"])
    assert cluster.wait_for(other, "running")["assigned_gpus"] == [1]
    named = cluster.begin("true", targets=["alpha::0"])
    counted = cluster.begin("true", required_gpus=2, targets=["alpha"])
    cluster.until(lambda: cluster.task(counted)["reason"])
    assert cluster.task(named)["reason"] == "alpha: 1 GPUs asked, 0 free"
    assert cluster.task(counted)["reason"] == "alpha: 2 GPUs asked, 0 free"
    gate.open()
    assert cluster.wait(named)["assigned_gpus"] == [0]
    assert cluster.wait(counted)["assigned_gpus"] == [0, 1]


def test_many_tasks_at_once_all_end_right_and_none_runs_twice(cluster: Cluster) -> None:
    task_ids = [cluster.begin("sh", "-c", f"echo {n}; exit {n % 3}", required_cores=n % 2) for n in range(30)]
    for number, task_id in enumerate(task_ids):
        task = cluster.wait(task_id)
        assert (task["exit_code"], task["attempt"]) == (number % 3, 1)
        assert cluster.output(task_id) == b"%d\n" % number
        assert [entry["event"] for entry in cluster.history(task_id)].count("placed") == 1
