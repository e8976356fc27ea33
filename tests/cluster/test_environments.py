"""Environments on the real thing: prepared on the host, carried to nodes with shared storage and without, killed on the way."""

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kohakuriver.model.image import TARBALL_FOLDER, TARBALL_LABEL
from tests.cluster.cluster import Json
from tests.cluster.conftest import NODES, Client, on_docker
from tests.cluster.rig import Refused, Rig
from tests.cluster.test_files import do, get, listed, put, url
from tests.docker_daemon import IMAGE, Daemon
from tests.ports import free_port
from tests.registry import PASSWORD, USER, registry
from tests.system.archive_maker import Archive, member

pytestmark = [on_docker]
ENV, LAB = "/api/docker/environments", "kohakuriver/lab:base"
WITH_STORAGE, WITHOUT = NODES
FILL = "echo prepared > /made; dd if=/dev/urandom of=/large bs=1M count=40 2>/dev/null"


@pytest.fixture
def lab(cluster: Rig, docker_daemon: Daemon) -> Iterator[Rig]:
    """The cluster with an environment `lab` in which a file was made; everything of it goes in the end."""
    finish(cluster, cluster.ask("POST", ENV, {"name": "lab", "image": IMAGE}))
    assert docker_daemon.cli("exec", "kohakuriver-env-lab", "sh", "-c", FILL).returncode == 0
    yield cluster
    with suppress(Refused):
        cluster.ask("DELETE", f"{ENV}/lab")
    for tarball in cluster.ask("GET", "/api/docker/tarballs"):
        cluster.ask("DELETE", f"/api/docker/tarballs/{tarball['stem']}")
    docker_daemon.cli("rmi", LAB)


def finish(rig: Rig, job: Json) -> Json:
    """The job once it is over, which must be well."""
    found: Json = {}

    def is_over() -> bool:
        found.update(rig.ask("GET", f"/api/docker/jobs/{job['job_id']}"))
        return found["state"] in ("done", "failed")

    rig.until(is_over)
    assert found["state"] == "done", found
    return found


def pack(rig: Rig) -> str:
    """Make a tarball of the environment; its stem."""
    finish(rig, rig.ask("POST", "/api/docker/tarballs/lab"))
    return str(rig.ask("GET", "/api/docker/tarballs")[0]["stem"])


def drop(rig: Rig, daemon: Daemon) -> None:
    """Have the image of the environment on no node; a container that was made of it may take a moment to go."""

    def is_gone() -> bool:
        daemon.cli("rmi", LAB)
        return daemon.cli("image", "inspect", LAB).returncode != 0

    rig.until(is_gone)


def label(daemon: Daemon) -> str:
    """Which tarball the image on the nodes came in; empty when it is not there."""
    return daemon.cli("image", "inspect", "-f", f'{{{{index .Config.Labels "{TARBALL_LABEL}"}}}}', LAB).stdout.strip()


def test_an_environment_runs_on_nodes_with_shared_storage_and_without(lab: Rig, docker_daemon: Daemon) -> None:
    stem = pack(lab)
    folder = lab.folder / "shared" / TARBALL_FOLDER
    assert {path.name for path in folder.iterdir()} == {f"{stem}.tar", f"{stem}.tar.sha256"}
    told = subprocess.run(["sha256sum", "-c", f"{stem}.tar.sha256"], cwd=folder, capture_output=True, check=False)
    assert told.returncode == 0, told
    for node in NODES:
        drop(lab, docker_daemon)  # host and nodes have one daemon here
        task = lab.run("cat", "/made", container_name="lab", targets=[node])
        assert (task["status"], lab.output(task["task_id"])) == ("completed", b"prepared\n"), task
        assert task["image_digest"].startswith("sha256:") and label(docker_daemon) == stem
    assert not list((lab.folder / WITHOUT / "images").iterdir())


def test_a_newer_tarball_is_brought_and_older_ones_are_pruned(lab: Rig, docker_daemon: Daemon) -> None:
    stems = []
    for number in range(3):
        time.sleep(1.1 if number else 0)  # a stem tells seconds
        stems.append(pack(lab))
    assert [each["stem"] for each in lab.ask("GET", "/api/docker/tarballs")] == stems[:0:-1]
    docker_daemon.cli("tag", IMAGE, LAB)  # what a node has may be anything
    task = lab.run("cat", "/made", container_name="lab", targets=[WITHOUT])
    assert task["status"] == "completed" and label(docker_daemon) == stems[-1]


@pytest.mark.parametrize("part", ["host", WITH_STORAGE, WITHOUT])
def test_whoever_is_killed_in_the_middle_of_a_sync_the_task_runs_in_the_end(
    lab: Rig, docker_daemon: Daemon, part: str
) -> None:
    stem = pack(lab)
    drop(lab, docker_daemon)
    node = WITH_STORAGE if part == WITH_STORAGE else WITHOUT
    killed = lab.host if part == "host" else lab.runners[part]
    task_id = lab.begin("cat", "/made", container_name="lab", targets=[node])
    lab.until(lambda: lab.task(task_id)["status"] != "pending")
    for _ in range(3):
        killed.kill()
        killed.start()
        time.sleep(0.7)
    task = lab.wait(task_id)
    assert (task["status"], lab.output(task_id), label(docker_daemon)) == ("completed", b"prepared\n", stem), task


def test_a_tarball_is_made_although_the_host_is_killed_meanwhile(lab: Rig) -> None:
    job = lab.ask("POST", "/api/docker/tarballs/lab")
    for _ in range(2):
        lab.host.kill()
        lab.host.start()
        lab.ask("GET", "/api/nodes")  # it is up
    stem = finish(lab, job)["message"].split()[0]
    folder = lab.folder / "shared" / TARBALL_FOLDER
    assert {path.name for path in folder.iterdir()} == {f"{stem}.tar", f"{stem}.tar.sha256"}
    digest = hashlib.sha256((folder / f"{stem}.tar").read_bytes()).hexdigest()
    assert lab.ask("GET", "/api/docker/tarballs")[0]["digest"] == digest


def test_a_hostile_tarball_fails_the_task_with_a_reason_and_is_not_loaded(cluster: Rig, docker_daemon: Daemon) -> None:
    folder = cluster.folder / "shared" / TARBALL_FOLDER
    folder.mkdir(exist_ok=True)
    bad = Archive(image="kohakuriver/trap:base", more=[member("../../../../etc/cron.d/trap", b"x")]).data()
    truncated = Archive(image="kohakuriver/trap:base", labels={TARBALL_LABEL: "trap-1700000002"}).data()[:500_000]
    for second, data, reason in ((1, bad, "leads out of it"), (2, truncated, "ends in the middle")):
        path = folder / f"trap-170000000{second}.tar"
        path.write_bytes(data)
        Path(f"{path}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
        for node in NODES:
            task = cluster.run("true", container_name="trap", targets=[node])
            assert task["status"] == "failed" and reason in task["error_message"], task
        cluster.ask("DELETE", f"/api/docker/tarballs/{path.stem}")
    assert docker_daemon.cli("image", "inspect", "kohakuriver/trap:base").returncode != 0
    assert not Path("/etc/cron.d/trap").exists()


def test_what_docker_saved_elsewhere_becomes_an_environment_and_no_name_is_taken_away(
    cluster: Rig, docker_daemon: Daemon, client: Client
) -> None:
    folder, name = cluster.folder / "shared" / TARBALL_FOLDER, "elsewhere/tool:1"
    folder.mkdir(exist_ok=True)
    create = ("docker", "env", "create", "tool", "--tarball", "tool-1700000001")
    file = folder / "tool-1700000001.tar"
    try:
        Archive(image="kohakuriver/lab:base").write(file)
        refused = client(*create)
        assert refused.returncode == 1 and b"must be called after that environment" in refused.stderr
        Archive(image=name).write(file)
        assert client(*create).returncode == 0
        assert client("docker", "env", "shell", "tool", "--", "true").returncode == 0
        client("docker", "env", "delete", "tool")
        Archive(image=name, labels={"another": "one"}).write(file)
        refused = client(*create)
        assert refused.returncode == 1 and b"another image of that name" in refused.stderr
        assert list(folder.glob("tool-*")) == [file], "nodes are not given what they would refuse"
    finally:
        client("docker", "env", "delete", "tool")
        file.unlink(missing_ok=True)
        docker_daemon.cli("rmi", name)


def test_a_person_does_it_all_by_commands(cluster: Rig, docker_daemon: Daemon, client: Client, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = client("docker", *words)
        assert done.returncode == 0, done
        return done.stdout.decode()

    try:
        assert "done" in said("env", "create", "lab", "--image", IMAGE)
        assert "exited" in said("env", "stop", "lab") and "running" in said("env", "start", "lab")
        stem = said("tarball", "create", "lab").split()[2]
        assert stem in said("tarball", "list") and stem in said("env", "list")
        drop(cluster, docker_daemon)
        assert said("sync", "lab", "--node", WITHOUT).count("present") == 1
        assert LAB in said("images", "--node", WITHOUT)
        said("tarball", "get", "lab", "-o", str(tmp_path / "lab.tar"))
        (kept,) = (cluster.folder / "shared" / TARBALL_FOLDER).glob("lab-*.tar")
        assert (tmp_path / "lab.tar").read_bytes() == kept.read_bytes()
        said("env", "delete", "lab")
        assert "done" in said("env", "create", "lab", "--tarball", stem)
        again = client("docker", "env", "create", "lab", "--image", IMAGE)
        assert again.returncode == 5 and b"already" in again.stderr
        missing = client("docker", "env", "create", "other", "--image", "localhost:1/nothing:x")
        assert missing.returncode == 1 and b"cannot be pulled" in missing.stderr
        assert said("tarball", "delete", "lab") == f"{stem}  deleted\n"
    finally:
        client("docker", "env", "delete", "lab")
        client("docker", "tarball", "delete", "lab")
        docker_daemon.cli("rmi", LAB)


def test_a_private_image_is_pulled_with_the_login_of_the_request_alone(
    cluster: Rig, docker_daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    with registry(tmp_path, free_port(), docker_daemon.directory / "net") as address:
        image = f"{address}/lab/private:1"
        assert (
            docker_daemon.cli("--config", str(tmp_path), "login", "-u", USER, "-p", PASSWORD, address).returncode == 0
        )
        docker_daemon.cli("tag", IMAGE, image)
        assert docker_daemon.cli("--config", str(tmp_path), "push", image).returncode == 0
        docker_daemon.cli("rmi", image)
        refused = cluster.run("true", registry_image=image, targets=[WITHOUT])
        assert refused["status"] == "failed" and "cannot be pulled" in refused["error_message"]
        (tmp_path / "login").write_text(f"{USER}:{PASSWORD}\n")
        words = ("submit", "--wait", "--image", image, "--registry-login-file", str(tmp_path / "login"))
        done = client("task", *words, "-t", WITHOUT, "-c", "0", "--", "true")
        assert done.returncode == 0, done
        task = cluster.task(done.stdout.split()[0].decode())
        assert task["image_digest"].startswith(f"{address}/lab/private@sha256:")
        docker_daemon.cli("rmi", image)
        create = ("env", "create", "private", "--image", image)
        assert b"cannot be pulled" in client("docker", *create).stderr
        done = client("docker", *create, "--registry-login-file", str(tmp_path / "login"))
        assert done.returncode == 0 and client("docker", "env", "delete", "private").returncode == 0, done
        docker_daemon.cli("rmi", image)

        def kept() -> list[Path]:
            files = [path for path in cluster.folder.rglob("*") if path.is_file()]
            return [path for path in files if PASSWORD.encode() in path.read_bytes()]

        cluster.until(lambda: not kept())


def test_its_files_are_reached_while_it_runs_and_when_it_is_stopped(lab: Rig, docker_daemon: Daemon) -> None:
    here = "environment/lab"
    assert get(lab, here, "read", path="/made") == b"prepared\n"
    assert len(get(lab, here, "download", path="/large")) == 40 * 2**20
    lab.ask("POST", f"{ENV}/lab/stop")
    assert put(lab, here, "write", b"edited\n", path="/made")[0] == 200
    assert "made" in listed(lab, here)
    lab.ask("POST", f"{ENV}/lab/start")
    assert docker_daemon.cli("exec", "kohakuriver-env-lab", "cat", "/made").stdout == "edited\n"
    assert do(lab, here, "delete", path="/made") == {"entries": 1}
    for path in ("/proc/1/root/etc/shadow", "../../etc/shadow"):
        assert lab.fetch("GET", url(here, "read", path=path))[0] in (403, 404, 409)
