"""Tasks over several nodes, addresses held for them, and machines that move, forget or stand in the way."""

import json

import pytest

from tests.overlay.cluster import OverlayCluster, wait_for

pytestmark = pytest.mark.docker
TALK = """
echo "$KOHAKURIVER_RANK of $KOHAKURIVER_WORLD_SIZE $KOHAKURIVER_IP $MASTER_ADDR $KOHAKURIVER_HOSTS"
if [ "$KOHAKURIVER_RANK" = 0 ]; then echo hello from rank 0 | nc -l -p "$MASTER_PORT"
else until nc -w 5 rank-0 "$MASTER_PORT" </dev/null | grep hello; do sleep 0.2; done; fi
"""


def test_tasks_over_two_nodes_know_and_reach_each_other(cluster: OverlayCluster) -> None:
    said = cluster.machines["host"].cli(
        "--json",
        "task",
        "submit",
        "--nodes",
        "2",
        "--cores",
        "0",
        "--shell",
        TALK,
        KOHAKURIVER_HOST=cluster.machines["host"].address,
    )
    assert said.returncode == 0, said.stderr
    ends = [cluster.wait(task_id) for task_id in json.loads(said.stdout)["task_ids"]]
    assert [end["status"] for end in ends] == ["completed", "completed"], (ends, cluster.logs())
    assert {end["assigned_node"] for end in ends} == {"n1", "n2"}
    addresses = [end["assigned_ip"] for end in ends]
    for rank, end in enumerate(ends):
        first = cluster.output(end["task_id"]).decode().splitlines()[0]
        assert first == f"{rank} of 2 {addresses[rank]} {addresses[0]} {','.join(addresses)}"
    assert b"hello from rank 0" in cluster.output(ends[1]["task_id"])


def test_when_one_of_them_fails_the_others_are_stopped(cluster: OverlayCluster) -> None:
    script = '[ "$KOHAKURIVER_RANK" = 1 ] && exit 3; sleep 1000'
    ids = cluster.submit_all("sh", "-c", script, nodes=2)
    assert [cluster.wait(task_id)["status"] for task_id in ids] == ["killed", "failed"]


def test_more_nodes_than_there_are_wait_and_say_so(cluster: OverlayCluster) -> None:
    ids = cluster.submit_all("true", nodes=3)
    wait_for(lambda: "all 3 tasks of its group" in (cluster.task(ids[0])["reason"] or ""), cluster.logs)
    assert {cluster.task(task_id)["status"] for task_id in ids} == {"pending"}
    for task_id in ids:
        cluster.order(task_id, "kill")


def test_a_reserved_address_waits_for_its_task_over_a_restart_of_the_host(cluster: OverlayCluster) -> None:
    host = cluster.machines["host"]
    said = host.cli("node", "ip-reserve", "--node", "n2", KOHAKURIVER_HOST=host.address)
    token = said.stdout.strip()
    held = cluster.ask("POST", "/api/overlay/ip/validate", {"token": token})
    cluster.host.kill()
    cluster.host.start()
    cluster.until_ready()
    submit = ["task", "submit", "--reserve-ip", token, "-c", "0", "--wait", "--json", "--", "sh", "-c", "ip addr"]
    done = json.loads(host.cli(*submit, KOHAKURIVER_HOST=host.address).stdout)
    task = done if "task_id" in done else cluster.task(done["task_ids"][0])
    assert (task["assigned_node"], task["assigned_ip"]) == ("n2", held["ip"])
    assert held["ip"].encode() in cluster.output(task["task_id"])
    assert not cluster.ask("POST", "/api/overlay/ip/validate", {"token": token})["valid"]
    assert cluster.ask("GET", "/api/overlay/ip/stats")["in_use"] == 0
    trail = cluster.ask("GET", "/api/audit")
    assert ("overlay.ip.reserve", f"address:{held['ip']}") in {(line["action"], line["object"]) for line in trail}


def test_a_vps_takes_a_reserved_address_and_keeps_it_when_it_is_stopped(cluster: OverlayCluster) -> None:
    host = cluster.machines["host"]
    where = {"KOHAKURIVER_HOST": host.address}
    token = host.cli("node", "ip-reserve", "--node", "n2", "--ttl", "30m", **where).stdout.strip()
    address = cluster.ask("POST", "/api/overlay/ip/validate", {"token": token})["ip"]
    vps_id = host.cli("vps", "create", "--reserve-ip", token, **where).stdout.strip()
    path = f"/api/vps/{vps_id}"

    def is_so(status: str) -> bool:
        return bool(cluster.ask("GET", path)["status"] == status)

    wait_for(lambda: is_so("running"), cluster.logs)
    other = cluster.place("n1")
    assert cluster.ask("GET", path)["assigned_ip"] == address and other.reaches(address)
    cluster.ask("POST", path + "/stop")
    wait_for(lambda: is_so("stopped"), cluster.logs)
    cluster.host.kill()
    cluster.host.start()
    cluster.until_ready()
    assert b"is taken" in cluster.fetch("POST", "/api/overlay/ip/reserve", {"ip": address})[1]
    cluster.ask("POST", path + "/restart")
    wait_for(lambda: is_so("running"), cluster.logs)
    assert cluster.ask("GET", path)["assigned_ip"] == address and other.reaches(address)
    cluster.ask("DELETE", path)
    wait_for(lambda: is_so("killed"), cluster.logs)
    assert cluster.ask("POST", "/api/overlay/ip/reserve", {"ip": address})["ip"] == address
    cluster.tidy()


def test_a_machine_that_moved_is_reached_where_it_is_now(cluster: OverlayCluster) -> None:
    one, two = cluster.place("n1"), cluster.place("n2")
    assert one.reaches(two.address)
    machine = cluster.machines["n1"]
    machine.run("ip addr flush dev eth0; ip addr add 192.168.77.99/24 dev eth0")
    try:
        wait_for(lambda: one.reaches(two.address) and two.reaches(one.address), cluster.logs)
        wait_for(lambda: "192.168.77.99" in str(cluster.nodes()["n1"]["url"]), cluster.logs)
        assert cluster.run("true", targets=["n1"])["status"] == "completed", "its API is reached, too"
    finally:
        machine.run(f"ip addr flush dev eth0; ip addr add {machine.address}/24 dev eth0")
    wait_for(lambda: one.reaches(two.address), cluster.logs)
    cluster.tidy()


def test_a_host_that_lost_its_memory_serves_the_runners_as_before(cluster: OverlayCluster) -> None:
    before = {r["hostname"]: r["subnet"] for r in cluster.overlay()["runners"]}
    cluster.host.kill()
    cluster.machines["host"].run(f"rm -f {cluster.machines['host'].directory}/state/host.db*")
    cluster.host.start()
    cluster.until_ready()
    assert {r["hostname"]: r["subnet"] for r in cluster.overlay()["runners"]} == before


def test_a_narrow_way_is_told(cluster: OverlayCluster) -> None:
    machine = cluster.machines["n2"]
    machine.run("ip link set eth0 mtu 1400")
    try:
        cluster.runners["n2"].kill()
        cluster.runners["n2"].start()
        wait_for(lambda: any("too narrow" in text for text in cluster.nodes()["n2"]["warnings"]), cluster.logs)
    finally:
        machine.run("ip link set eth0 mtu 1500")


def test_a_clash_of_ranges_is_told_and_the_runner_works_without_the_overlay(cluster: OverlayCluster) -> None:
    machine = cluster.machines["n2"]
    machine.run("ip link add mine type bridge; ip addr add 10.130.0.1/16 dev mine; ip link set mine up")
    try:
        wait_for(lambda: "10.130.0.0/16 on mine" in str(cluster.nodes()["n2"]["warnings"]), cluster.logs)
        assert cluster.run("true", targets=["n2"])["status"] == "completed"
    finally:
        machine.run("ip link del mine")
    cluster.until_ready()
