"""A private Docker daemon for the tests and the benchmark, which never touches the machine's own.

It has its own network namespace, so that neither bridges nor firewall rules meet, and a containerd beside it, as on
the machines of users: there, too, the death of one is not the death of the other. `start_daemon(directory)` needs
nothing but the standard library, `dockerd` and a static busybox; `docker_daemon` is the pytest fixture around it (one
daemon for a whole test session).
"""

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

IMAGE = "kohakuriver/busybox:base"
BUSYBOX = Path("/usr/bin/busybox")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
CONTAINERD = """
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.tracing"]
[grpc]
address = "{directory}/containerd.sock"
"""


class DaemonFailed(Exception):
    """The private daemon did not come up, or answered a request with an error."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_seconds: float = 120.0) -> None:
        super().__init__("docker", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Daemon:
    """One private dockerd; `directory` holds everything it has, `socket` is the path of its API."""

    directory: Path
    process: subprocess.Popen[bytes]
    containerd: subprocess.Popen[bytes]

    @property
    def socket(self) -> str:
        return str(self.directory / "docker.sock")

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def request(self, method: str, path: str, body: Any = None, query: Mapping[str, object] | None = None) -> Any:
        """One call of the raw Engine API: decoded JSON, or bytes; raises DaemonFailed from 400 on."""
        connection = UnixConnection(self.socket)
        try:
            return exchange(connection, method, path + (f"?{urlencode(query)}" if query else ""), body)
        finally:
            connection.close()

    def cli(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the `docker` command against this daemon."""
        command = ["docker", "-H", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)

    def containers(self, label: str = "") -> list[dict[str, Any]]:
        """All containers, running or not, with the label given (`name=value`)."""
        query = {"all": "1"} | ({"filters": json.dumps({"label": [label]})} if label else {})
        found: list[dict[str, Any]] = self.request("GET", "/containers/json", query=query)
        return found

    def remove_containers(self) -> None:
        """Take every container of this daemon away, whatever it does."""
        for container in self.containers():
            with suppress(DaemonFailed):
                self.request("DELETE", f"/containers/{container['Id']}", query={"force": "1", "v": "1"})

    def kill(self) -> None:
        """`kill -9` of dockerd; its containers go on, because it runs with `--live-restore`."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Start the daemon again on what the last one left; returns when it answers."""
        if self.process.poll() is None:
            self.kill()
        self.process = spawn_dockerd(self.directory)
        wait_ready(self)

    def stop(self) -> None:
        """End the daemon, its containers, its shims and its mounts, then delete its directory."""
        if self.process.poll() is None:
            with suppress(DaemonFailed, OSError, http.client.HTTPException):
                self.remove_containers()
        for process in (self.process, self.containerd):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()
        end_leftovers(self.directory)
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


def exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """Send one request on a connection that stays open; bytes are sent as they are, anything else as JSON."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
    connection.request(method, path, body=raw, headers={"Content-Type": kind} if raw is not None else {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= http.client.BAD_REQUEST:
        raise DaemonFailed(f"{method} {path}: {answer.status} {content.decode(errors='replace').strip()}")
    if answer.getheader("Content-Type", "").startswith("application/json") and content:
        return json.loads(content)
    return content


def start_daemon(directory: Path) -> Daemon:
    """Start a private dockerd below `directory` and give it the busybox image; raises DaemonFailed.

    The path must be short: a unix socket's may have 107 bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    make_network(directory)
    daemon = Daemon(directory, containerd=spawn_containerd(directory), process=spawn_dockerd(directory))
    try:
        wait_ready(daemon)
        import_image(daemon, IMAGE)
    except BaseException:
        daemon.stop()
        raise
    return daemon


def make_network(directory: Path) -> None:
    """Make a network namespace that outlives the daemon, as its containers do."""
    namespace = directory / "net"
    namespace.touch()
    run_quietly(["unshare", f"--net={namespace}", str(BUSYBOX), "ip", "link", "set", "lo", "up"])


def inside(directory: Path) -> list[str]:
    """How a command line begins that is to run in the daemon's network namespace."""
    return ["nsenter", f"--net={directory / 'net'}"]


def run_quietly(command: list[str]) -> None:
    """Run a command; raises DaemonFailed with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DaemonFailed(f"{' '.join(command)}: {done.stderr.strip()}")


def spawn_containerd(directory: Path) -> subprocess.Popen[bytes]:
    configuration = directory / "containerd.toml"
    configuration.write_text(CONTAINERD.format(directory=directory))
    return spawn(directory, ["containerd", "--config", str(configuration), "--log-level", "warn"])


def spawn_dockerd(directory: Path) -> subprocess.Popen[bytes]:
    (directory / "pid").unlink(missing_ok=True)  # a killed daemon leaves it
    await_socket(directory / "containerd.sock")
    command = ["dockerd", "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"]
    command += ["-H", f"unix://{directory}/docker.sock", "--pidfile", f"{directory}/pid", "--live-restore"]
    return spawn(directory, [*command, "--containerd", f"{directory}/containerd.sock"])


def spawn(directory: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [*inside(directory), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def await_socket(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as attempt, suppress(OSError):
            attempt.connect(str(path))
            return
        time.sleep(POLL_SECONDS)
    raise DaemonFailed(f"nothing listens on {path}")


def wait_ready(daemon: Daemon) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if daemon.process.poll() is not None:
            break
        with suppress(OSError, http.client.HTTPException, DaemonFailed):
            daemon.request("GET", "/_ping")
            return
        time.sleep(POLL_SECONDS)
    raise DaemonFailed(f"dockerd did not come up:\n{daemon.log.read_text(errors='replace')[-2000:]}")


def import_image(daemon: Daemon, name: str) -> None:
    """Make the image `name` (`repository:tag`) out of the machine's static busybox, as `docker import` does."""
    repository, _, tag = name.rpartition(":")
    daemon.request("POST", "/images/create", busybox_tar(), {"fromSrc": "-", "repo": repository, "tag": tag})


def busybox_tar() -> bytes:
    """A root file system of 2 MB: busybox under all its names, and the few files that programs expect."""
    names = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            tar.addfile(tar_entry(folder, tarfile.DIRTYPE, mode))
        tar.addfile(tar_entry("bin/busybox", size=BUSYBOX.stat().st_size), io.BytesIO(BUSYBOX.read_bytes()))
        for name in names:
            if name != "busybox":
                tar.addfile(tar_entry(f"bin/{name}", tarfile.SYMTYPE, link="busybox"))
        for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            tar.addfile(tar_entry(f"etc/{name}", mode=0o644, size=len(text)), io.BytesIO(text.encode()))
    return buffer.getvalue()


def tar_entry(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, size
    return entry


def end_leftovers(directory: Path) -> None:
    """Kill what still names this directory on its command line (shims, containerd, network helpers), and its children.

    The first process of a container is such a child: it outlives its shim.
    """
    named = processes_naming(directory)
    for pid in sorted(named | children_of(named)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while processes_naming(directory) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def processes_naming(directory: Path) -> set[int]:
    word = f"{directory}/".encode()
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and word in command_line(entry)
    }


def children_of(parents: set[int]) -> set[int]:
    found = set()
    for parent in parents:
        with suppress(OSError):
            found |= set(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    return found


def command_line(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def unmount_below(directory: Path) -> None:
    """Unmount what a daemon that was killed left mounted, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [point for line in lines if (point := line.split()[4]).startswith(f"{directory}/")]
    for point in sorted(points, key=len, reverse=True):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def missing_parts() -> list[str]:
    """What this machine lacks to run a private daemon; empty when it can."""
    lacking = [name for name in ("dockerd", "containerd", "runc", "nsenter", "unshare") if shutil.which(name) is None]
    if not BUSYBOX.exists():
        lacking.append(str(BUSYBOX))
    return lacking if os.geteuid() == 0 else [*lacking, "root"]


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[Daemon]:
    """One private daemon for the whole session; a test may kill and restart it."""
    if lacking := missing_parts():
        pytest.skip(f"no private Docker daemon without {', '.join(lacking)}")
    daemon = start_daemon(Path(tempfile.mkdtemp(prefix="krdocker-", dir="/tmp")))
    try:
        yield daemon
    finally:
        daemon.stop()
