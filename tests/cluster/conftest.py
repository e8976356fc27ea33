"""Clusters of every kind, for the tests of this folder.

A test that asks for `cluster` runs once on each kind: `fake` within the test's process, `process` and `docker` as
processes of the built file. The three are shared by all tests, and each test finds them as they were in the beginning.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kohakuriver.system.process_keeper import scope_of
from tests.cluster.cluster import Cluster, Json
from tests.cluster.in_process import LOG_LIMIT_BYTES, FakeCluster, Loop
from tests.cluster.rig import Rig
from tests.docker_daemon import IMAGE, Daemon

PROCESS = {"KOHAKURIVER_ENGINE": "process", "KOHAKURIVER_PROCESS_ENGINE_ALLOWED": "true"}
FAST_HOST = {
    "KOHAKURIVER_HEARTBEAT_TIMEOUT_FACTOR": "4",
    "KOHAKURIVER_CLEANUP_CHECK_INTERVAL_SECONDS": "0.5",
    "KOHAKURIVER_KILL_GRACE_SECONDS": "1",
}
PATIENT_HOST = {"KOHAKURIVER_HEARTBEAT_TIMEOUT_FACTOR": "120"}  # on a crowded machine a killed runner is long away
NODES = ("alpha", "beta")  # alpha shares storage with the host, beta does not
CONTROL_GROUPS = Path("/sys/fs/cgroup")
CLEAN_SECONDS = 15.0
MakeRig = Callable[..., Rig]

FAKE_KIND = pytest.param("fake")
PROCESS_KIND = pytest.param("process", marks=pytest.mark.artifact)
DOCKER_KIND = pytest.param("docker", marks=pytest.mark.docker)


def on(*kinds: object) -> pytest.MarkDecorator:
    """Have a test run on these kinds of cluster only."""
    return pytest.mark.parametrize("kind", kinds)


on_real_machines = on(PROCESS_KIND, DOCKER_KIND)
on_docker = on(DOCKER_KIND)


def docker_env(daemon: Daemon, marks: Path) -> dict[str, str]:
    """A runner's settings for containers of that daemon, which may mount `marks`."""
    return {
        "KOHAKURIVER_ENGINE": "docker",
        "KOHAKURIVER_DOCKER_SOCKET": daemon.socket,
        "KOHAKURIVER_INITIAL_BASE_IMAGE": IMAGE,
        "KOHAKURIVER_ALLOWED_MOUNT_ROOTS": str(marks),
        "KOHAKURIVER_TASK_SHM_BYTES": "64000000",
    }


@pytest.fixture(params=[FAKE_KIND, PROCESS_KIND, DOCKER_KIND])
def kind(request: pytest.FixtureRequest) -> str:
    """What the cluster is made of."""
    return str(request.param)


@pytest.fixture(scope="package")
def clusters() -> Iterator[dict[str, Cluster]]:
    """The shared clusters that were asked for so far, by kind."""
    with ExitStack() as stack:
        yield SharedClusters(stack)


class SharedClusters(dict[str, Cluster]):
    """Clusters, and the stack that takes them away."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self.stack = stack


@pytest.fixture
def cluster(kind: str, clusters: SharedClusters, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared cluster of that kind, tidy."""
    if kind not in clusters:
        if kind == "fake":
            clusters[kind] = clusters.stack.enter_context(shared_fake())
        else:
            daemon = request.getfixturevalue("docker_daemon") if kind == "docker" else None
            clusters[kind] = clusters.stack.enter_context(shared_rig(request.getfixturevalue("pyz"), daemon))
    found = clusters[kind]
    yield found
    found.tidy()


@contextmanager
def shared_fake() -> Iterator[FakeCluster]:
    with tempfile.TemporaryDirectory(prefix="krfake-") as folder, running_fake(Path(folder), NODES) as cluster:
        yield cluster


@contextmanager
def running_fake(folder: Path, names: tuple[str, ...]) -> Iterator[FakeCluster]:
    """A cluster in this process; only the first node shares storage with the host."""
    thread = Loop()
    try:
        own = {names[0]: {"shared_dir": str(folder / "shared")}}
        cluster = FakeCluster(folder, thread, names, own)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
            cluster.forget_machines()
    finally:
        thread.close()


@contextmanager
def shared_rig(pyz: Path, daemon: Daemon | None) -> Iterator[Rig]:
    """A cluster of the built file, which must leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="krrig-") as place:
        folder = Path(place)
        shared = {"KOHAKURIVER_SHARED_DIR": str(folder / "shared")}
        cut = {"KOHAKURIVER_LOG_LIMIT_BYTES": str(LOG_LIMIT_BYTES)}
        env = (docker_env(daemon, folder) if daemon else PROCESS) | cut
        own = {"KOHAKURIVER_DOCKER_SOCKET": daemon.socket if daemon else str(folder / "no-docker")}
        rig = Rig(pyz, folder, kind="docker" if daemon else "process", host_env=FAST_HOST | shared | own)
        for name in NODES:
            rig.add_runner(name, env | (shared if name == NODES[0] else {}))
        try:
            rig.start()
            yield rig
            rig.until(lambda: left_by_tasks(rig, daemon) == [])
        finally:
            rig.stop()
        await_nothing_left(rig, daemon)


def await_nothing_left(rig: Rig, daemon: Daemon | None = None) -> None:
    """Fails unless a stopped cluster, whose tasks are all over, soon has left nothing behind."""

    def left() -> list[str]:
        return left_by_tasks(rig, daemon) + left_by_programs(rig)

    deadline = time.monotonic() + CLEAN_SECONDS
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left() == []


def left_by_tasks(rig: Rig, daemon: Daemon | None = None) -> list[str]:
    """What tasks that are over left on the machine besides their output."""
    found = [f"container {each['Names']}" for each in (daemon.containers("kohakuriver.cluster") if daemon else [])]
    for state in (rig.folder / runner for runner in rig.runners):
        found += [f"mark of a task {path}" for path in (state / "started").glob("*")]
        found += [f"record of a container {path}" for path in (state / "containers").glob("*")]
        found += [f"place of a task {path}" for path in (state / "processes").glob("*/workloads/*")]
        scopes = [scope_of(str(root)) for root in (state / "processes").glob("*")]
        groups = (path for scope in scopes for path in CONTROL_GROUPS.glob(f"**/kohakuriver/{scope}/*"))
        found += [f"control group {path}" for path in groups if path.is_dir()]
    return found


def left_by_programs(rig: Rig) -> list[str]:
    """What programs that have ended left on the machine besides their state."""
    word = str(rig.folder).encode()
    mine = [p for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]
    found = [f"process {p.name} {mentions(p)[:200]!r}" for p in mine if word in mentions(p)]
    found += [f"temporary {path}" for path in (rig.folder / "tmp").iterdir()]
    for root in (root for runner in rig.runners for root in (rig.folder / runner / "processes").glob("*")):
        found += [f"control group {path}" for path in CONTROL_GROUPS.glob(f"**/kohakuriver/{scope_of(str(root))}")]
    return found


def mentions(process: Path) -> bytes:
    """The command line and the variables of a process; empty when it is gone."""
    try:
        return (process / "cmdline").read_bytes() + b" " + (process / "environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def make_rig(pyz: Path, tmp_path: Path) -> Iterator[MakeRig]:
    """Makes started clusters of the built file, and stops them."""
    made: list[Rig] = []

    def make(names: tuple[str, ...], env: Mapping[str, str]) -> Rig:
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        rig = Rig(pyz, folder, host_env=PATIENT_HOST)
        for name in names:
            rig.add_runner(name, env)
        made.append(rig)
        rig.start()
        return rig

    yield make
    for rig in made:
        rig.stop()


Said = subprocess.CompletedProcess[bytes]
Client = Callable[..., Said]


@pytest.fixture
def client(cluster: Cluster, pyz: Path, tmp_path: Path) -> Client:
    """Runs a client command of the built file against the cluster, as a person does."""

    def run(*words: str, env: Json | None = None) -> Said:
        command = [sys.executable, str(pyz), *words]
        return subprocess.run(
            command, env=client_env(cluster, tmp_path) | (env or {}), capture_output=True, timeout=60, check=False
        )

    return run


def client_env(cluster: Cluster, home: Path) -> dict[str, str]:
    """Variables by which client commands find the cluster."""
    mine = {"KOHAKURIVER_HOST": "127.0.0.1", "KOHAKURIVER_PORT": str(cluster.port), "HOME": str(home)}
    shiv = {"SHIV_ROOT": os.environ.get("SHIV_ROOT", str(Path.home() / ".shiv"))}
    return dict(os.environ) | shiv | mine
