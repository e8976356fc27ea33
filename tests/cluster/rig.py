"""A cluster of processes of the built file, each of which can be killed and started again."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = ("completed", "failed", "killed", "killed_oom", "stopped", "rejected")
Json = dict[str, Any]


class Refused(Exception):
    """The host answered with an error; `status` and `error` say which."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(f"{status}: {error}")
        self.status, self.error = status, error


@dataclass
class Member:
    """One program of the cluster, in a process of its own."""

    command: list[str]
    env: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

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
class Rig:
    """A host and its runners; calls to the host are repeated while it is away."""

    pyz: Path
    folder: Path
    python: str = sys.executable
    port: int = 0
    host: Member = field(init=False)
    runners: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.host = self._member("host", {"KOHAKURIVER_HOST_PORT": str(self.port), **QUICK})

    def add_runner(self, name: str, env: Mapping[str, str]) -> Member:
        """A runner, not yet started."""
        own = {
            "KOHAKURIVER_HOST_PORT": str(self.port),
            "KOHAKURIVER_RUNNER_HOSTNAME": name,
            "KOHAKURIVER_RUNNER_PORT": str(free_port()),
        }
        self.runners[name] = self._member("runner", {**own, **env}, name)
        return self.runners[name]

    def start(self) -> None:
        """Everything, until every node is online."""
        self.host.start()
        self.ask("GET", "/api/nodes")  # a runner needs the secret that a host makes at its first start
        for runner in self.runners.values():
            runner.start()
        self.until(lambda: self.online() == set(self.runners), 60)

    def stop(self) -> None:
        for member in (*self.runners.values(), self.host):
            member.stop()

    def online(self) -> set[str]:
        return {node["hostname"] for node in self.ask("GET", "/api/nodes") if node["status"] == "online"}

    def ask(self, method: str, path: str, body: Json | None = None, patience_seconds: float = 60) -> Any:
        """The decoded answer; raises Refused, and TimeoutError when the host stays away."""
        status, text = self.fetch(method, path, body, patience_seconds)
        if status >= 400:
            raise Refused(status, json.loads(text)["error"])
        return json.loads(text)

    def fetch(
        self, method: str, path: str, body: Json | None = None, patience_seconds: float = 60
    ) -> tuple[int, bytes]:
        """Status and body, whatever they are; asked again while nobody answers, or only that something is away."""
        deadline = time.monotonic() + patience_seconds
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                headers = {"Content-Type": "application/json"} if body is not None else {}
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
                if status not in (502, 503) or time.monotonic() > deadline:
                    return status, content
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the host does not answer {method} {path}") from None
            finally:
                connection.close()
            time.sleep(0.05)

    def submit(self, task: Json) -> str:
        """The new task's id; asked with one idempotency key until somebody answers, so that it is never two."""
        asked = {"idempotency_key": uuid.uuid4().hex, **task}
        return str(self.ask("POST", "/api/tasks", asked)["task_ids"][0])

    def task(self, task_id: str) -> Json:
        return dict(self.ask("GET", f"/api/tasks/{task_id}"))

    def wait(self, task_id: str, seconds: float = 60) -> Json:
        """The task once it is over."""
        self.until(lambda: self.task(task_id)["status"] in FINAL, seconds)
        return self.task(task_id)

    def wait_for(self, task_id: str, status: str, seconds: float = 60) -> Json:
        """The task once it has that status."""
        self.until(lambda: self.task(task_id)["status"] == status, seconds)
        return self.task(task_id)

    def output(self, task_id: str, name: str = "stdout", query: str = "") -> bytes:
        status, content = self.fetch("GET", f"/api/tasks/{task_id}/{name}{query}")
        if status >= 400:
            raise Refused(status, json.loads(content)["error"])
        return content

    def until(self, holds: Any, seconds: float) -> None:
        """Return when it holds; raises TimeoutError with the logs' ends."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come to hold in {seconds:g} s\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """The last lines of every program."""
        members = {"host": self.host, **self.runners}
        return "\n".join(f"--- {n}\n{m.log.read_text()[-3000:]}" for n, m in members.items() if m.log.exists())

    def _member(self, program: str, env: Mapping[str, str], name: str = "host") -> Member:
        own = {
            "KOHAKURIVER_STATE_DIR": str(self.folder / name),
            "KOHAKURIVER_CLUSTER_SECRET_FILE": str(self.folder / "secret"),
            "SHIV_ROOT": os.environ.get("SHIV_ROOT", ""),
        }
        if not own["SHIV_ROOT"]:
            del own["SHIV_ROOT"]
        return Member([self.python, str(self.pyz), program], {**own, **env}, self.folder / f"{name}.log")


QUICK = {"KOHAKURIVER_HEARTBEAT_INTERVAL_SECONDS": "1"}


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
