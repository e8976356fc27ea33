"""A cluster of processes of the built file, each of which can be killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cluster import Cluster, Json, Marks, Pipe, Refused
from tests.ports import free_port

__all__ = ["Member", "Refused", "Rig"]


@dataclass
class Member:
    """One program of the cluster, in a process of its own."""

    command: list[str]
    env: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.command, env={**os.environ, **self.env}, stdout=out, stderr=out)

    def kill(self) -> None:
        """As `kill -9` does it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None


@dataclass
class Rig(Cluster):
    """A host and its runners, processes of the built file; calls to the host are repeated while it is away."""

    pyz: Path
    folder: Path
    python: str = sys.executable
    port: int = 0
    host_env: Mapping[str, str] = field(default_factory=dict)
    kind: str = "process"
    host: Member = field(init=False)
    runners: dict[str, Member] = field(default_factory=dict)
    runner_env: dict[str, Mapping[str, str]] = field(default_factory=dict)
    marks: Marks = field(init=False)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.host = self._member(
            "host", {"KOHAKURIVER_HOST_PORT": str(self.port), **NO_SSH_PORT, **NO_ACCOUNTS, **QUICK, **self.host_env}
        )
        (self.folder / "tmp").mkdir()
        place = self.folder / "marks"
        self.marks = Marks(place, "/marks" if self.kind == "docker" else str(place))

    def add_runner(self, name: str, env: Mapping[str, str]) -> Member:
        """A runner, not yet started."""
        self.runners[name] = self._runner(name, env, name)
        return self.runners[name]

    def make_twin(self, name: str) -> Member:
        """Another runner of that name with a state of its own, not yet started; it is none of the cluster's."""
        return self._runner(name, self.runner_env[name], f"twin-of-{name}")

    def _runner(self, name: str, env: Mapping[str, str], folder: str) -> Member:
        self.runner_env[name] = env
        own = {
            "KOHAKURIVER_HOST_PORT": str(self.port),
            "KOHAKURIVER_RUNNER_HOSTNAME": name,
            "KOHAKURIVER_RUNNER_PORT": str(free_port()),
        }
        return self._member("runner", {**own, **env}, folder)

    def submit(self, task: Json) -> str:
        """The new task's id."""
        return self.begin(**task)

    def gate(self) -> Pipe:
        return self.marks.gate()

    def additions(self) -> Json:
        return {"additional_mounts": [f"{self.marks.directory}:/marks"]} if self.kind == "docker" else {}

    def logs(self) -> str:
        """The last lines of every program."""
        members = {"host": self.host, **self.runners}
        return "\n".join(f"--- {n}\n{m.log.read_text()[-3000:]}" for n, m in members.items() if m.log.exists())

    def _member(self, program: str, env: Mapping[str, str], name: str = "host") -> Member:
        own = {
            "KOHAKURIVER_STATE_DIR": str(self.folder / name),
            "KOHAKURIVER_CLUSTER_SECRET_FILE": str(self.folder / "secret"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return Member([self.python, str(self.pyz), program], {**own, **env}, self.folder / f"{name}.log")


NO_ACCOUNTS = {"KOHAKURIVER_AUTH_ENABLED": "false", "KOHAKURIVER_DEFAULT_CONTAINER_NAME": ""}
NO_SSH_PORT = {"KOHAKURIVER_HOST_SSH_PROXY_PORT": "0"}
QUICK = {"KOHAKURIVER_HEARTBEAT_INTERVAL_SECONDS": "1"}
