"""Files of an environment on the host: the same while it runs and when it is stopped, and never outside of it."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.conftest import Client, client_env, on_docker
from tests.cluster.rig import Refused, Rig
from tests.cluster.test_environments import ENV, finish
from tests.docker_daemon import IMAGE, Daemon

pytestmark = [on_docker]
FS = "/api/fs/environment/files"


@pytest.fixture
def files(cluster: Rig) -> Iterator[Rig]:
    """The cluster with an environment `files`."""
    finish(cluster, cluster.ask("POST", ENV, {"name": "files", "image": IMAGE}))
    yield cluster
    with suppress(Refused):
        cluster.ask("DELETE", f"{ENV}/files")


def put(rig: Rig, path: str, data: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=30)
    try:
        connection.request("PUT", f"{FS}/write?path={path}", data, {"Content-Type": "application/octet-stream"})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
def test_files_are_written_read_moved_and_deleted(files: Rig, docker_daemon: Daemon, runs: bool) -> None:
    if not runs:
        files.ask("POST", f"{ENV}/files/stop")
    files.ask("POST", f"{FS}/mkdir", {"path": "/srv/data", "parents": True})
    assert put(files, "/srv/data/a.bin", bytes(range(256))) == 200
    assert files.fetch("GET", f"{FS}/read?path=/srv/data/a.bin&offset=250") == (200, bytes(range(250, 256)))
    files.ask("POST", f"{FS}/rename", {"path": "/srv/data/a.bin", "target": "/srv/data/b.bin"})
    page = files.ask("GET", f"{FS}/list?path=/srv/data")
    assert [(e["name"], e["size_bytes"]) for e in page["entries"]] == [("b.bin", 256)]
    if runs:
        assert docker_daemon.cli("exec", "kohakuriver-env-files", "ls", "/srv/data").stdout == "b.bin\n"
    else:
        files.ask("POST", f"{ENV}/files/start")
        assert docker_daemon.cli("exec", "kohakuriver-env-files", "ls", "/srv/data").stdout == "b.bin\n"
    files.ask("POST", f"{FS}/delete", {"path": "/srv", "recursive": True})
    with pytest.raises(Refused, match="no such file"):
        files.ask("GET", f"{FS}/stat?path=/srv")


def test_nothing_leads_out_of_it(files: Rig, docker_daemon: Daemon) -> None:
    docker_daemon.cli("exec", "kohakuriver-env-files", "ln", "-s", "/../../../../etc/hostname", "/out")
    docker_daemon.cli("exec", "kohakuriver-env-files", "ln", "-s", "/proc/1/root", "/deep")
    inside = docker_daemon.cli("exec", "kohakuriver-env-files", "cat", "/etc/hostname").stdout.encode()
    assert files.fetch("GET", f"{FS}/read?path=/out") == (200, inside)
    for path in ("/deep/etc/passwd", "/proc/self/environ", "/dev/null"):
        assert files.fetch("GET", f"{FS}/read?path={path}")[0] in (403, 404, 409)
    with pytest.raises(Refused, match="there is no environment nothing"):
        files.ask("GET", "/api/fs/environment/nothing/list")


def test_a_person_reaches_them_as_those_of_a_workload(files: Rig, client: Client, tmp_path: Path) -> None:
    def fs(*words: str) -> bytes:
        said = client("fs", *words)
        assert said.returncode == 0, said.stderr
        return said.stdout

    (tmp_path / "here/below").mkdir(parents=True)
    (tmp_path / "here/below/file").write_bytes(bytes(range(256)))
    fs("mkdir", "-p", "env:files:/srv/in")
    assert b"env:files:/srv/in/here" in fs("put", str(tmp_path / "here"), "env:files:/srv/in")
    fs("put", str(tmp_path / "here/below/file"), "env:files:/srv/one")
    assert fs("cat", "env:files:/srv/one") == bytes(range(256))
    fs("mv", "env:files:/srv/one", "/srv/in")
    listed = json.loads(fs("ls", "--json", "env:files:/srv/in"))
    assert [each["name"] for each in listed] == ["here", "one"]
    fs("get", "env:files:/srv/in/here", str(tmp_path / "there"))
    assert (tmp_path / "there/below/file").read_bytes() == bytes(range(256))
    fs("rm", "-r", "env:files:/srv/in")
    for words, told in (
        (("ls", "env:nothing"), b"there is no environment nothing"),
        (("cat", "env:files"), b"a path is missing"),
        (("ls", "--attempt", "1", "env:files:/"), b"an environment has none"),
    ):
        assert told in client("fs", *words).stderr


def test_changes_are_told_until_it_stops(files: Rig, docker_daemon: Daemon, pyz: Path, tmp_path: Path) -> None:
    docker_daemon.cli("exec", "kohakuriver-env-files", "mkdir", "/watched")
    command = [sys.executable, str(pyz), "fs", "watch", "-r", "--json", "env:files:/watched"]
    writing = "i=0; while sleep 0.2; do i=$((i+1)); echo x > /watched/$i; done"
    with subprocess.Popen(command, env=client_env(files, tmp_path), stdout=subprocess.PIPE) as watching:
        assert watching.stdout
        docker_daemon.cli("exec", "-d", "kohakuriver-env-files", "sh", "-c", writing)
        assert json.loads(watching.stdout.readline())["change"] in ("created", "changed")
        files.ask("POST", f"{ENV}/files/stop")
        watching.stdout.read()
        assert watching.wait(60) == 0
