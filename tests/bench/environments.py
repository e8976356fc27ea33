"""How fast an environment comes to a node over HTTP, against what its Docker daemon takes to load the same file."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from kohakuriver.model.image import TARBALL_FOLDER, TARBALL_LABEL
from tests.bench import servers
from tests.bench.cluster import Client
from tests.bench.figures import Bounds, Figure, at_least, interleaved
from tests.docker_daemon import Daemon, start_daemon
from tests.system.archive_maker import Archive, member, tar_of

ROUNDS, FILES, FILE_BYTES = 3, 64, 4_000_000
STEM, IMAGE = "lab-1700000001", "kohakuriver/lab:base"


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them, on one private daemon."""
    folder.mkdir()
    path = make_tarball(folder / "host" / TARBALL_FOLDER)
    daemon = start_daemon(folder / "daemon")
    try:
        env = {"KOHAKURIVER_DOCKER_SOCKET": daemon.socket}
        with servers.host(pyz, folder) as host, servers.runner(pyz, folder, host.url, env):
            client, megabytes = Client.to(host.url), path.stat().st_size / 1e6
            ours, theirs = interleaved(lambda: sync(client, daemon), lambda: load(daemon, path), ROUNDS)
            yield at_least(
                "environment sync over HTTP", megabytes / ours, "MB/s", Bounds(None, 0.7, megabytes / theirs)
            )
    finally:
        daemon.stop()


def make_tarball(folder: Path) -> Path:
    """A tarball of random files where the host looks for it."""
    folder.mkdir(parents=True)
    layer = tar_of(member(f"data/{number}", os.urandom(FILE_BYTES)) for number in range(FILES))
    path = Archive(layer=layer, labels={TARBALL_LABEL: STEM}).write(folder / f"{STEM}.tar")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {path.name}\n")
    return path


def sync(client: Client, daemon: Daemon) -> float:
    """Seconds from asking for it to its image on the node."""
    daemon.cli("rmi", IMAGE)
    began = time.monotonic()
    states = client.ask("POST", "/api/docker/sync/lab", {"nodes": ["alpha"]})
    while states[0]["sync"]["phase"] != "present":
        if states[0]["sync"]["phase"] == "failed":
            raise AssertionError(json.dumps(states))
        time.sleep(0.01)
        states = client.ask("GET", "/api/docker/sync/lab?nodes=alpha")
    return time.monotonic() - began


def load(daemon: Daemon, path: Path) -> float:
    """Seconds that `docker load` takes."""
    daemon.cli("rmi", IMAGE)
    began = time.monotonic()
    subprocess.run(["docker", "-H", daemon.url, "load", "-q", "-i", str(path)], check=True, capture_output=True)
    return time.monotonic() - began
