"""Files of an environment on the host: the same while it runs and when it is stopped, and never outside of it."""

import http.client
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster.conftest import on_docker
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
