"""Files of workloads, through host and runner: whole and byte for byte, whatever breaks in the middle."""

import http.client
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.cluster.cluster import FINAL, Cluster, Json, Refused
from tests.cluster.conftest import DOCKER_KIND, FAKE_KIND, PROCESS_KIND, on
from tests.cluster.rig import Rig
from tests.docker_daemon import IMAGE, Daemon

OCTETS = {"Content-Type": "application/octet-stream"}
on_files = on(FAKE_KIND, DOCKER_KIND)
on_docker = on(DOCKER_KIND)


@contextmanager
def connection(cluster: Cluster) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    try:
        yield made
    finally:
        made.close()


def url(task_id: str, verb: str, **query: object) -> str:
    return f"/api/fs/{task_id}/{verb}?{urlencode(query)}"


def get(cluster: Cluster, task_id: str, verb: str, **query: object) -> bytes:
    status, data = cluster.fetch("GET", url(task_id, verb, **query))
    assert status == 200, data
    return data


def put(cluster: Cluster, task_id: str, verb: str, data: Any, **query: object) -> tuple[int, bytes]:
    with connection(cluster) as made:
        made.request("PUT", url(task_id, verb, **query), data, OCTETS)
        answer = made.getresponse()
        return answer.status, answer.read()


def do(cluster: Cluster, task_id: str, verb: str, **members: object) -> Json:
    answer: Json = cluster.ask("POST", f"/api/fs/{task_id}/{verb}", members)
    return answer


def listed(cluster: Cluster, task_id: str, path: str = "/") -> list[str]:
    return [entry["name"] for entry in cluster.ask("GET", url(task_id, "list", path=path))["entries"]]


def begun(cluster: Cluster, **spec: Any) -> str:
    """A task that runs until it is killed."""
    task_id = cluster.begin("sleep", "1000", **spec)
    cluster.wait_for(task_id, "running")
    if cluster.kind != "process":
        do(cluster, task_id, "mkdir", path="/tmp", parents=True)  # a machine that is made up has nothing
    return task_id


@on_files
@pytest.mark.parametrize("node", ["alpha", "beta"])
def test_a_file_comes_back_as_it_went(cluster: Cluster, node: str) -> None:
    task_id, data = begun(cluster, targets=[node]), os.urandom(3_000_000)
    status, told = put(cluster, task_id, "write", data, path="/tmp/a b", mode=0o600)
    assert status == 200, told
    assert get(cluster, task_id, "read", path="/tmp/a b") == data
    assert get(cluster, task_id, "read", path="/tmp/a b", offset=5, length=7) == data[5:12]
    assert get(cluster, task_id, "download", path="/tmp/a b", offset=2_999_999) == data[-1:]
    found = cluster.ask("GET", url(task_id, "stat", path="/tmp/a b"))
    assert (found["kind"], found["size_bytes"], found["mode"]) == ("file", 3_000_000, 0o600)
    assert do(cluster, task_id, "mkdir", path="/tmp/x/y", parents=True)["kind"] == "directory"
    assert do(cluster, task_id, "rename", path="/tmp/a b", target="/tmp/x/b")["name"] == "b"
    assert listed(cluster, task_id, "/tmp/x") == ["b", "y"]
    assert do(cluster, task_id, "delete", path="/tmp/x", recursive=True) == {"entries": 3}
    with pytest.raises(Refused) as refused:
        get_json(cluster, task_id, "stat", path="/tmp/x")
    assert refused.value.status == 404


def get_json(cluster: Cluster, task_id: str, verb: str, **query: object) -> Json:
    answer: Json = cluster.ask("GET", url(task_id, verb, **query))
    return answer


@on_files
def test_a_tree_comes_back_as_it_went(cluster: Cluster) -> None:
    task_id, buffer = begun(cluster), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for number in range(300):
            info = tarfile.TarInfo(f"d{number % 7}/f{number}")
            info.size = number * 100
            made.addfile(info, io.BytesIO(bytes([number % 256]) * info.size))
    status, told = put(cluster, task_id, "tree", buffer.getvalue(), path="/tmp/tree")
    assert status == 200 and b'"entries":300' in told, told
    with tarfile.open(fileobj=io.BytesIO(get(cluster, task_id, "tree", path="/tmp/tree"))) as back:
        files = {info.name: back.extractfile(info).read() for info in back if info.isreg()}  # type: ignore[union-attr]
    assert files == {f"d{n % 7}/f{n}": bytes([n % 256]) * (n * 100) for n in range(300)}


@on_files
def test_what_breaks_off_is_not_there_and_can_be_gone_on_with(cluster: Cluster) -> None:
    task_id, data, part = begun(cluster), os.urandom(8_000_000), "a1b2c3d4e5"
    with connection(cluster) as made:
        made.putrequest("PUT", url(task_id, "upload", path="/tmp/big", part=part))
        made.putheader("Content-Type", "application/octet-stream")
        made.putheader("Content-Length", str(len(data)))
        made.endheaders(data[:5_000_000])

        def arrived() -> int:
            try:
                return int(get_json(cluster, task_id, "stat", path=f"/tmp/.kohakuriver-{part}.part")["size_bytes"])
            except Refused:
                return 0

        cluster.until(lambda: arrived() > 1_000_000)
    assert "big" not in listed(cluster, task_id, "/tmp")
    have = arrived()
    status, told = put(cluster, task_id, "upload", b"", path="/tmp/big", part=part, offset=7_999_999)
    assert status == 409 and b'"offset":' in told, told
    status, told = put(cluster, task_id, "upload", data[have:], path="/tmp/big", part=part, offset=have)
    assert status == 200, told
    assert get(cluster, task_id, "download", path="/tmp/big") == data
    assert listed(cluster, task_id, "/tmp") == ["big"]


@on_files
def test_a_download_is_gone_on_with_only_while_the_file_is_the_same(cluster: Cluster) -> None:
    task_id = begun(cluster)
    put(cluster, task_id, "write", b"0123456789", path="/tmp/f")
    with connection(cluster) as made:
        made.request("GET", url(task_id, "download", path="/tmp/f"))
        answer = made.getresponse()
        size, version = answer.headers["X-Kohakuriver-Size"], answer.headers["X-Kohakuriver-Version"]
        assert (answer.read(), size) == (b"0123456789", "10")
    assert get(cluster, task_id, "download", path="/tmp/f", offset=4, version=version) == b"456789"
    put(cluster, task_id, "write", b"9876543210", path="/tmp/f")
    with pytest.raises(Refused, match="has changed"):
        get_json(cluster, task_id, "download", path="/tmp/f", offset=4, version=version)


@on_files
def test_limits_hold(cluster: Cluster) -> None:
    task_id = begun(cluster)
    for verb, size, wanted in (("write", 50_000_001, 413), ("upload", 50_000_001, 200)):
        status, told = put(cluster, task_id, verb, bytes(size), path="/tmp/large")
        assert status == wanted, told
    assert len(get(cluster, task_id, "read", path="/tmp/large")) == 10_000_000
    with pytest.raises(Refused, match="length"):
        get_json(cluster, task_id, "read", path="/tmp/large", length=10_000_001)


@on_files
def test_who_did_what_is_written_down(cluster: Cluster) -> None:
    task_id = begun(cluster)
    put(cluster, task_id, "write", b"12345", path="/tmp/f")
    get(cluster, task_id, "read", path="/tmp/f")
    do(cluster, task_id, "rename", path="/tmp/f", target="/tmp/g")
    do(cluster, task_id, "delete", path="/tmp/g")

    def found() -> set[tuple[str, str]]:
        entries = cluster.ask("GET", "/api/audit?limit=100")
        return {(entry["action"], entry["detail"]) for entry in entries if entry["object"] == f"task:{task_id}"}

    wanted = {("fs.write", "/tmp/f 5 bytes"), ("fs.read", "/tmp/f 5 bytes"), ("fs.delete", "/tmp/g")}
    cluster.until(lambda: wanted | {("fs.rename", "/tmp/f -> /tmp/g")} <= found())


@on_docker
def test_a_link_to_a_secret_of_the_node_leads_into_the_container(cluster: Cluster) -> None:
    """Planted before and during the reading; the node has an /etc/shadow, the image has none."""
    swap = "while :; do ln -sfn /etc/shadow /tmp/l; ln -sfn ../../../../../etc/passwd /tmp/l; done"
    task_id = cluster.shell(f"ln -s /etc/shadow /tmp/s; ln -s / /tmp/r; {swap}")
    cluster.wait_for(task_id, "running")
    cluster.until(lambda: "l" in listed(cluster, task_id, "/tmp"))
    own = get(cluster, task_id, "read", path="/etc/passwd")
    assert own.startswith(b"root:x:0:0:root:/root:/bin/sh\n")
    for path in ("/tmp/s", "/tmp/r/../../etc/shadow", "../../../etc/shadow", "/proc/1/root/etc/shadow", "/dev/sda"):
        status, _ = cluster.fetch("GET", url(task_id, "read", path=path))
        assert status in (403, 404, 409), path
    for _ in range(100):
        status, data = cluster.fetch("GET", url(task_id, "read", path="/tmp/l"))
        assert status == 404 or data == own


@on_docker
def test_the_task_sees_what_was_written_and_keeps_its_mounts(cluster: Cluster) -> None:
    task_id = cluster.shell(
        "until cat /tmp/go; do sleep 0.1; done; echo mine > /local_temp/$KOHAKURIVER_TASK_ID; sleep 1000"
    )
    cluster.wait_for(task_id, "running")
    put(cluster, task_id, "write", b"go on\n", path="/tmp/go")
    cluster.until(lambda: b"go on" in cluster.output_if_any(task_id))
    cluster.until(lambda: task_id in listed(cluster, task_id, "/local_temp"))
    assert get(cluster, task_id, "read", path=f"/local_temp/{task_id}") == b"mine\n"
    for path in ("/local_temp", "/etc/hosts", "/etc"):
        with pytest.raises(Refused):
            do(cluster, task_id, "delete", path=path, recursive=True)
    do(cluster, task_id, "delete", path=f"/local_temp/{task_id}")


@on_files
def test_what_has_no_files_says_so(cluster: Cluster) -> None:
    over = cluster.run("true")["task_id"]
    cluster.until(lambda: cluster.fetch("GET", url(over, "list"))[0] == 404)
    waiting = cluster.begin("true", targets=["alpha"], required_cores=1000)
    with pytest.raises(Refused, match="no files yet"):
        get_json(cluster, waiting, "list")
    with pytest.raises(Refused) as refused:
        get_json(cluster, "12345", "list")
    assert refused.value.status == 404


@on(PROCESS_KIND)
def test_the_files_of_the_node_are_not_handed_out(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="without a container") as refused:
        get_json(cluster, begun(cluster), "list")
    assert refused.value.status == 403


@on_files
def test_many_transfers_at_once_do_not_stand_in_each_others_way(cluster: Cluster) -> None:
    """More than there are threads, and half of them do not go on."""
    task_id, data = begun(cluster), os.urandom(3_000_000)
    put(cluster, task_id, "write", data, path="/tmp/f")
    stuck = [http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60) for _ in range(20)]
    try:
        for each in stuck:
            each.request("GET", url(task_id, "download", path="/tmp/f"))  # and nobody reads the answer
        done: list[bool] = []
        threads = [
            threading.Thread(target=lambda: done.append(get(cluster, task_id, "download", path="/tmp/f") == data))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [True] * 20
    finally:
        for each in stuck:
            each.close()


@on_docker
def test_a_stopped_workspace_is_read_and_written_and_starts_with_what_was_written(cluster: Cluster) -> None:
    asked = {
        "registry_image": IMAGE,
        "required_cores": 0,
        "target": "beta",
        "name": "files",
        "ssh_key_mode": "disabled",
    }
    vps = cluster.ask("POST", "/api/vps", asked)["vps"]["task_id"]
    cluster.wait_for(vps, "running")
    put(cluster, vps, "write", b"before", path="/root/before")
    try:
        cluster.ask("POST", f"/api/vps/{vps}/stop")
        cluster.wait_for(vps, "stopped")
        assert get(cluster, vps, "read", path="/root/before") == b"before"
        assert put(cluster, vps, "write", b"while it was stopped", path="/root/later")[0] == 200
        assert listed(cluster, vps, "/root") == ["before", "later"]
        cluster.ask("POST", f"/api/vps/{vps}/restart", {})
        cluster.wait_for(vps, "running")
        assert get(cluster, vps, "read", path="/root/later") == b"while it was stopped"
    finally:
        with suppress(Refused):
            cluster.ask("POST", f"/api/vps/{vps}/stop")
        cluster.until(lambda: cluster.task(vps)["status"] in FINAL)
        cluster.ask("DELETE", f"/api/vps/{vps}")


@on(FAKE_KIND)
def test_transfers_that_break_off_leave_no_descriptor_behind(cluster: Cluster) -> None:
    """Host and runner are in this process."""
    task_id = begun(cluster)
    put(cluster, task_id, "write", bytes(4_000_000), path="/tmp/f")

    def descriptors() -> set[str]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        return {each for each in found if "/tmp" in each}

    before = descriptors()
    for turn in range(150):
        with connection(cluster) as made:
            if turn % 3 == 0:
                made.request("GET", url(task_id, "download", path="/tmp/f"))
                made.getresponse().read(10)
            elif turn % 3 == 1:
                made.request("GET", url(task_id, "tree", path="/tmp"))
            else:
                made.putrequest("PUT", url(task_id, "write", path="/tmp/g"))
                made.putheader("Content-Type", "application/octet-stream")
                made.putheader("Content-Length", "1000000")
                made.endheaders(b"x" * 1000)
    cluster.until(lambda: descriptors() <= before)
    cluster.until(lambda: listed(cluster, task_id, "/tmp") == ["f"])


@on_docker
def test_what_a_killed_runner_left_half_written_is_swept(cluster: Rig, docker_daemon: Daemon) -> None:
    task_id = begun(cluster, targets=["beta"])
    with connection(cluster) as made:
        made.putrequest("PUT", url(task_id, "write", path="/tmp/big"))
        for name, value in {**OCTETS, "Content-Length": "9000000"}.items():
            made.putheader(name, value)
        made.endheaders()
        made.send(bytes(2_000_000))
        cluster.until(lambda: listed(cluster, task_id, "/tmp"))
        cluster.runners["beta"].kill()
    name = f"kohakuriver-task-{task_id}"
    assert docker_daemon.cli("exec", name, "sh", "-c", "touch -d '2020-01-01 00:00' /tmp/.*.part").returncode == 0
    for note in (cluster.folder / "beta/unfinished").iterdir():
        os.utime(note, (0, 0))
    cluster.runners["beta"].start()
    cluster.until(lambda: listed(cluster, task_id, "/tmp") == [])
