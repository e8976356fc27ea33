"""A host and its runners, each on a machine of its own, with an overlay between them."""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kohakuriver.system.netns import in_network_of
from tests.cluster.cluster import Cluster
from tests.docker_daemon import BUSYBOX, IMAGE, Daemon
from tests.overlay.machines import Machine, Program

PORT = 8000
PATIENCE_SECONDS = 90.0


class OverlayCluster(Cluster):
    """The programs; `machines` are where they run, the host's under the name `host`."""

    kind = "docker"
    port = PORT
    runners: Mapping[str, Program]

    def __init__(self, machines: Mapping[str, Machine], env: Mapping[str, str]) -> None:
        self.machines = machines
        host = machines["host"]
        self.host = Program(host, ["host"], {**HOST, "KOHAKURIVER_HOST_BIND_IP": host.address, **_places(host), **env})
        self.runners = {
            name: Program(machine, ["runner"], _runner_env(machine, host))
            for name, machine in machines.items()
            if machine.daemon is not None
        }

    def connection(self) -> http.client.HTTPConnection:
        return self.machines["host"].connection(PORT)

    def logs(self) -> str:
        parts = {name: machine.directory / f"{self._word(name)}.log" for name, machine in self.machines.items()}
        return "\n".join(f"---- {name}\n{log.read_text()[-3000:]}" for name, log in parts.items())

    def _word(self, name: str) -> str:
        return "host" if name == "host" else "runner"

    def overlay(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/api/overlay/status"))

    def is_ready(self) -> bool:
        """Whether containers on every node can use the overlay."""
        return {r["hostname"] for r in self.overlay()["runners"] if r["ready"]} == set(self.runners)

    def until_ready(self) -> None:
        wait_for(self.is_ready, self.logs)

    def container(self, node: str, task_id: str) -> "Container":
        """The container of a running task."""
        daemon = self.machines[node].daemon
        assert daemon is not None
        address = self.task(task_id)["assigned_ip"]
        assert address, f"it has no address in the overlay: {self.overlay()}\n{self.logs()}"
        return Container(daemon, f"kohakuriver-task-{task_id}", address)

    def place(self, node: str, script: str = "sleep 3600", **spec: Any) -> "Container":
        """A container that runs on a node until the test is over."""
        task_id = self.begin("sh", "-c", script, targets=[node], **spec)
        wait_for(lambda: self.task(task_id)["status"] == "running", lambda: f"{self.task(task_id)}\n{self.logs()}")
        return self.container(node, task_id)

    def tidy(self) -> None:
        """End every task."""
        for task in self.ask("GET", "/api/tasks?limit=1000"):
            if task["status"] in ("pending", "assigning", "running", "paused", "lost"):
                self.order(task["task_id"], "kill")
        wait_for(lambda: not any(m.daemon.containers("kohakuriver.task") for m in self.machines.values() if m.daemon))


class Container:
    """A running container and its overlay address."""

    def __init__(self, daemon: Daemon, name: str, address: str) -> None:
        self.daemon, self.name, self.address = daemon, name, address

    @property
    def pid(self) -> int:
        """Its first process."""
        return int(self.daemon.request("GET", f"/containers/{self.name}/json")["State"]["Pid"])

    @property
    def inside(self) -> list[str]:
        """How a command line begins that is to run in its network, where it may do everything."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def run(self, command: str, seconds: float = 60.0) -> tuple[int, str]:
        """Exit code and what a shell command says in its network."""
        done = subprocess.run(
            [*self.inside, str(BUSYBOX), "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def plain_socket(self) -> socket.socket:
        """A TCP socket in its network."""
        made = in_network_of(self.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.settimeout(60)
        return made

    def listening(self) -> socket.socket:
        """A socket that listens on its address, at a port that is free."""
        made = self.plain_socket()
        made.bind((self.address, 0))
        made.listen()
        return made

    def reaches(self, address: str) -> bool:
        """Whether one echo of three comes back."""
        return self.run(f"busybox ping -c 3 -i 0.2 -W 2 {address}")[0] == 0


HOST = {
    "KOHAKURIVER_AUTH_ENABLED": "false",
    "KOHAKURIVER_AUTH_DISABLED_ON_NETWORK_I_UNDERSTAND": "true",
    "KOHAKURIVER_HEARTBEAT_INTERVAL_SECONDS": "0.5",
    "KOHAKURIVER_HEARTBEAT_TIMEOUT_FACTOR": "20",
    "KOHAKURIVER_CLEANUP_CHECK_INTERVAL_SECONDS": "1",
    "KOHAKURIVER_KILL_GRACE_SECONDS": "0.2",
    "KOHAKURIVER_OVERLAY_ENABLED": "true",
}


def _places(machine: Machine) -> dict[str, str]:
    secret = machine.directory.parent / "cluster_secret"
    return {
        "KOHAKURIVER_STATE_DIR": str(machine.directory / "state"),
        "KOHAKURIVER_CLUSTER_SECRET_FILE": str(secret),
        "KOHAKURIVER_ALLOWED_HOSTS": f'["{machine.address}"]',
    }


def _runner_env(machine: Machine, host: Machine) -> dict[str, str]:
    assert machine.daemon is not None
    return {
        **_places(machine),
        "KOHAKURIVER_HOST_ADDRESS": host.address,
        "KOHAKURIVER_RUNNER_HOSTNAME": machine.name,
        "KOHAKURIVER_DOCKER_SOCKET": machine.daemon.socket,
        "KOHAKURIVER_INITIAL_BASE_IMAGE": IMAGE,
        "KOHAKURIVER_TASK_SHM_BYTES": "64000000",
    }


@contextmanager
def running(
    machines: Mapping[str, Machine], headers: Mapping[str, str] | None = None, **env: str
) -> Iterator[OverlayCluster]:
    """A cluster whose overlay is ready; the headers say who asks it."""
    cluster = OverlayCluster(machines, env)
    cluster.headers = headers or {}
    try:
        cluster.start()
        cluster.until_ready()
        yield cluster
    finally:
        cluster.stop()


def wait_for(
    condition: Callable[[], Any], told: Callable[[], str] = str, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """Return when it holds; fails with what is told when it does not come to."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)
