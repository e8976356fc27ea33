"""`kohakuriver fs`, as people type it, against a workload in a real container."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import DOCKER_KIND, Client, client_env, on
from tests.cluster.test_files import begun, listed, url
from tests.system.test_tree_archive import tree_of

pytestmark = on(DOCKER_KIND)
MEGABYTE, BIG_MEGABYTES = 1_000_000, 200


def ok(client: Client, *words: str) -> str:
    said = client("fs", *words)
    assert said.returncode == 0, said.stderr
    return said.stdout.decode()


def test_files_and_trees_go_up_and_come_back(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    task_id, here = begun(cluster), tmp_path / "here"
    (here / "tree/dev").mkdir(parents=True)
    (here / "tree/dev/file").write_bytes(os.urandom(MEGABYTE))
    (here / "tree/run.sh").write_text("#!/bin/sh\n")
    (here / "tree/run.sh").chmod(0o755)
    (here / "tree/link").symlink_to("dev/file")
    (here / "one").write_bytes(os.urandom(3 * MEGABYTE))
    ok(client, "mkdir", "-p", f"{task_id}:/work/in")
    said = ok(client, "put", str(here / "tree"), str(here / "one"), f"{task_id}:/work/in")
    assert len(said.splitlines()) == 2
    assert listed(cluster, task_id, "/work/in") == ["one", "tree"]
    assert ok(client, "ls", f"{task_id}:/work/in/tree/run.sh").splitlines()[1].startswith("-rwxr-xr-x")
    there = tmp_path / "there"
    there.mkdir()
    ok(client, "get", f"{task_id}:/work/in", str(there))
    assert tree_of(there / "in") == tree_of(here)
    ok(client, "get", f"{task_id}:/work/in/one", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (here / "one").read_bytes()
    assert client("fs", "cat", f"{task_id}:/work/in/one").stdout == (here / "one").read_bytes()
    ok(client, "mv", f"{task_id}:/work/in/one", "/work")
    ok(client, "rm", "-r", f"{task_id}:/work/in")
    assert json.loads(ok(client, "ls", "--json", f"{task_id}:/work"))[0]["name"] == "one"
    assert json.loads(ok(client, "stat", "--json", f"{task_id}:/work/one"))["size_bytes"] == 3 * MEGABYTE


def test_a_link_that_leads_out_is_left_out_and_told(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    task_id, here = begun(cluster), tmp_path / "here"
    here.mkdir()
    (here / "secret").symlink_to("/etc/shadow")
    (here / "up").symlink_to("../../etc/shadow")
    (here / "file").write_bytes(b"x")
    said = client("fs", "put", str(here), f"{task_id}:/tmp/x")
    assert said.returncode == 0 and said.stderr.count(b"left out") == 2
    assert listed(cluster, task_id, "/tmp/x") == ["file"]


def test_standard_input_and_output_are_files_too(cluster: Cluster, tmp_path: Path, pyz: Path) -> None:
    task_id, data = begun(cluster), os.urandom(2 * MEGABYTE)
    env = client_env(cluster, tmp_path)
    command = [sys.executable, str(pyz), "fs"]
    subprocess.run([*command, "put", "-", f"{task_id}:/tmp/in"], input=data, env=env, check=True, timeout=60)
    said = subprocess.run(
        [*command, "get", f"{task_id}:/tmp/in", "-"], env=env, check=True, timeout=60, capture_output=True
    )
    assert said.stdout == data


MISTAKES = (
    (("cat", "{id}:/nothing"), 3, "/nothing: there is no such file"),
    (("cat", "{id}"), 2, "a path is missing"),
    (("rm", "{id}"), 2, "a path is missing"),
    (("rm", "{id}:/bin"), 5, "not empty"),
    (("ls", "{id}:/proc"), 4, "not files of the workload"),
    (("get", "{id}:/etc/passwd", "/nowhere/x"), 2, "/nowhere/x: No such file"),
    (("put", "/nowhere", "{id}:/x"), 2, "/nowhere: No such file"),
    (("ls", "sev en"), 2, "not ID:PATH"),
    (("ls", "seven"), 3, "seven"),
    (("ls", "7:/"), 3, "there is no task 7"),
    (("put", "/etc/passwd"), 2, "kohakuriver fs put LOCAL"),
)


def test_what_went_wrong_is_one_line(cluster: Cluster, client: Client) -> None:
    task_id = begun(cluster)
    for words, code, told in MISTAKES:
        said = client("fs", *(word.format(id=task_id) for word in words))
        assert said.returncode == code and told in said.stderr.decode() and said.stderr.count(b"\n") == 1, said


def test_transfers_go_on_when_the_host_is_killed_in_the_middle(cluster: Cluster, tmp_path: Path, pyz: Path) -> None:
    task_id = begun(cluster, targets=["beta"])
    big, back = tmp_path / "big", tmp_path / "back"
    big.write_bytes(os.urandom(MEGABYTE) * BIG_MEGABYTES)
    command = [sys.executable, str(pyz), "fs"]
    for words, has_begun in (
        (["put", str(big), f"{task_id}:/tmp/big"], lambda: part_in(cluster, task_id)),
        (["get", f"{task_id}:/tmp/big", str(back)], lambda: sum(p.stat().st_size for p in tmp_path.glob("back.*"))),
    ):
        with subprocess.Popen([*command, *words], env=client_env(cluster, tmp_path)) as transfer:
            cluster.until(has_begun)
            cluster.host.kill()
            assert transfer.poll() is None, "it was in the middle"
            cluster.host.start()
            assert transfer.wait(120) == 0
    assert back.read_bytes() == big.read_bytes()
    assert listed(cluster, task_id, "/tmp") == ["big"]


def test_a_runner_that_is_killed_in_the_middle_harms_nothing(cluster: Cluster, tmp_path: Path, pyz: Path) -> None:
    task_id = begun(cluster, targets=["beta"])
    big = tmp_path / "big"
    big.write_bytes(os.urandom(MEGABYTE) * BIG_MEGABYTES)
    command = [sys.executable, str(pyz), "fs", "put", str(big), f"{task_id}:/tmp/big"]
    with subprocess.Popen(command, env=client_env(cluster, tmp_path)) as transfer:
        cluster.until(lambda: part_in(cluster, task_id))
        cluster.runners["beta"].kill()
        assert transfer.poll() is None, "it was in the middle"
        cluster.runners["beta"].start()
        assert transfer.wait(120) == 0
    assert cluster.task(task_id)["status"] == "running"
    assert listed(cluster, task_id, "/tmp") == ["big"]


def part_in(cluster: Cluster, task_id: str) -> bool:
    """Whether some bytes of an upload have come."""
    entries = cluster.ask("GET", url(task_id, "list", path="/tmp"))["entries"]
    return any(entry["name"].endswith(".part") and entry["size_bytes"] for entry in entries)


def test_changes_are_told_as_they_happen_and_go_on_after_the_host_was_away(
    cluster: Cluster, tmp_path: Path, pyz: Path
) -> None:
    script = "i=0; while sleep 0.3; do i=$((i+1)); mkdir -p /tmp/w/d; echo x > /tmp/w/d/$i; done"
    task_id = cluster.shell(script)
    cluster.wait_for(task_id, "running")
    cluster.until(lambda: "w" in listed(cluster, task_id, "/tmp"))
    command = [sys.executable, str(pyz), "fs", "watch", "-r", "--json", f"{task_id}:/tmp/w"]
    with subprocess.Popen(command, env=client_env(cluster, tmp_path), stdout=subprocess.PIPE) as watching:
        assert watching.stdout
        for _ in range(2):
            told = json.loads(watching.stdout.readline())
            assert told["change"] in ("created", "changed") and told["path"].startswith("d/"), told
            cluster.host.kill()
            cluster.host.start()
        cluster.order(task_id, "kill")
        rest = watching.stdout.read()
        assert watching.wait(60) == 0, rest
