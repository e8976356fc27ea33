"""What every cluster of the tests can be asked and told, whatever it is made of."""

import errno
import http.client
import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

FINAL = ("completed", "failed", "killed", "killed_oom", "stopped", "rejected")
UNFINISHED = ("pending_approval", "pending", "assigning", "running", "paused", "lost")
PATIENCE_SECONDS = 60.0
Json = dict[str, Any]


class Refused(Exception):
    """The host answered with an error; `status` and `error` say which."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(f"{status}: {error}")
        self.status, self.error = status, error


class Part(Protocol):
    """A host or a runner that can be ended and started again."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def start(self) -> None:
        """Begin to run; it may be a moment before it answers."""

    def kill(self) -> None:
        """End at once, as `kill -9` does it."""

    def stop(self) -> None:
        """End as a service manager does it."""


class Gate(Protocol):
    """A place in a script where the task waits until the test lets it pass: the words, and what the task needs."""

    @property
    def wait(self) -> str:
        """What to write into the script."""

    def open(self) -> None:
        """Let the task pass; returns when it was there."""


class Cluster:
    """A host and its nodes; calls to the host are repeated while it is away.

    `kind` is fake, process or docker. `marks` is a directory that tasks of `shell` know as `seen_marks`.
    """

    kind: str
    port: int
    host: Part
    runners: Mapping[str, Part]
    headers: Mapping[str, str] = {}  # by which the host knows who asks

    def start(self) -> None:
        """Everything, until every node is online."""
        self.host.start()
        self.ask("GET", "/api/nodes")  # a runner needs the secret that a host makes at its first start
        for runner in self.runners.values():
            runner.start()
        self.until(lambda: self.online() == set(self.runners))

    def stop(self) -> None:
        """Everything; what runs goes on."""
        for part in (*self.runners.values(), self.host):
            part.stop()

    def logs(self) -> str:
        """The last lines of every program."""
        return ""

    def gate(self) -> Gate:
        """A new one, shut."""
        raise NotImplementedError

    def additions(self) -> Json:
        """What every task of `shell` asks for besides, so that it can pass gates and see the marks."""
        return {}

    # ---- asking

    def ask(self, method: str, path: str, body: Json | None = None, patience_seconds: float = PATIENCE_SECONDS) -> Any:
        """The decoded answer; raises Refused, and TimeoutError when the host stays away."""
        status, text = self.fetch(method, path, body, patience_seconds)
        if status >= 400:
            raise Refused(status, json.loads(text)["error"])
        return json.loads(text)

    def fetch(
        self, method: str, path: str, body: Json | None = None, patience_seconds: float = PATIENCE_SECONDS
    ) -> tuple[int, bytes]:
        """Status and body, whatever they are; asked again while nobody answers, or only that something is away."""
        deadline = time.monotonic() + patience_seconds
        while True:
            connection = self.connection()
            try:
                headers = {**self.headers, **({"Content-Type": "application/json"} if body is not None else {})}
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

    def connection(self) -> http.client.HTTPConnection:
        """A way to the host, not yet tried."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def online(self) -> set[str]:
        return {node["hostname"] for node in self.nodes().values() if node["status"] == "online"}

    def nodes(self) -> dict[str, Json]:
        return {node["hostname"]: node for node in self.ask("GET", "/api/nodes")}

    def submit_all(self, command: str, *arguments: str, **spec: Any) -> list[str]:
        """The ids of one submit; asked with one idempotency key until somebody answers, so that it is never two.

        Unless told otherwise, a task takes no cores, so that tests do not wait for each other.
        """
        asked = {"idempotency_key": uuid.uuid4().hex, "required_cores": 0, **spec}
        answer = self.ask("POST", "/api/tasks", {"command": command, "arguments": list(arguments), **asked})
        return [str(task_id) for task_id in answer["task_ids"]]

    def begin(self, command: str, *arguments: str, **spec: Any) -> str:
        """The id of a new task."""
        return self.submit_all(command, *arguments, **spec)[0]

    def shell(self, script: str, **spec: Any) -> str:
        """The id of a new task that runs a script, which may hold gates."""
        return self.begin("sh", "-c", script, **{**self.additions(), **spec})

    def run(self, command: str, *arguments: str, **spec: Any) -> Json:
        """A new task, once it is over."""
        return self.wait(self.begin(command, *arguments, **spec))

    def run_shell(self, script: str, **spec: Any) -> Json:
        """A new task that runs a script, once it is over."""
        return self.wait(self.shell(script, **spec))

    def task(self, task_id: str) -> Json:
        return dict(self.ask("GET", f"/api/tasks/{task_id}"))

    def history(self, task_id: str) -> list[Json]:
        return list(self.ask("GET", f"/api/tasks/{task_id}/history"))

    def order(self, task_id: str, what: str) -> Json:
        """Kill, pause or resume it."""
        return dict(self.ask("POST", f"/api/tasks/{task_id}/{what}"))

    def output(
        self, task_id: str, name: str = "stdout", query: str = "", patience_seconds: float = PATIENCE_SECONDS
    ) -> bytes:
        """What a task wrote; raises Refused, after a while also when its node is away."""
        status, content = self.fetch("GET", f"/api/tasks/{task_id}/{name}{query}", None, patience_seconds)
        if status >= 400:
            raise Refused(status, json.loads(content)["error"])
        return content

    @contextmanager
    def following(self, task_id: str, query: str = "") -> Iterator[Callable[[], bytes]]:
        """Follow a task's output; each call gives the next bytes that came, and none at its end."""
        with self.following_soon(task_id, query) as more:
            self.until(lambda: self.task(task_id)["status"] not in ("pending", "assigning"))
            yield more

    @contextmanager
    def following_soon(self, task_id: str, query: str = "") -> Iterator[Callable[[], bytes]]:
        """The same for a task that may not have a place yet; the host answers when it has one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        answers: list[http.client.HTTPResponse] = []

        def more() -> bytes:
            if not answers:
                answers.append(connection.getresponse())
                assert answers[0].status == 200, answers[0].read()
            return answers[0].read1(65536)

        try:
            connection.request("GET", f"/api/tasks/{task_id}/stdout?follow=true{query}")
            yield more
        finally:
            for answer in answers:
                answer.close()
            connection.close()

    # ---- waiting

    def wait(self, task_id: str, seconds: float = PATIENCE_SECONDS) -> Json:
        """The task once it is over."""
        return self.wait_for(task_id, *FINAL, seconds=seconds)

    def wait_for(self, task_id: str, *statuses: str, seconds: float = PATIENCE_SECONDS) -> Json:
        """The task once it has one of these statuses; fails at once when it is over otherwise."""
        found: Json = {}

        def is_there() -> bool:
            found.update(self.task(task_id))
            assert found["status"] in statuses or found["status"] not in FINAL, f"it is {found}"
            return found["status"] in statuses

        self.until(is_there, seconds)
        return found

    def wait_output(self, task_id: str, wanted: bytes, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when a task that runs has written this."""
        self.until(lambda: wanted in self.output_if_any(task_id), seconds)

    def output_if_any(self, task_id: str) -> bytes:
        with suppress(Refused):
            return self.output(task_id, patience_seconds=0)
        return b""

    def stays_at(self, task_id: str, still: bytes, seconds: float = 0.7) -> None:
        """Fails when the output grows within so long, which is several times as long as it takes to."""
        time.sleep(seconds)
        assert self.output(task_id) == still

    def until(self, holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Return when it holds; raises TimeoutError with the logs' ends."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come to hold in {seconds:g} s\n{self.logs()}")
            time.sleep(0.03)

    def tidy(self) -> None:
        """As it was in the beginning: every part runs, every node takes tasks, and none is left."""
        for part in (self.host, *self.runners.values()):
            if not part.alive:
                part.start()
        self.until(lambda: self.online() >= set(self.runners))
        for node in self.nodes().values():
            if node["draining"]:
                self.ask("POST", f"/api/nodes/{node['hostname']}/resume")
        for task_id in self.unfinished():
            with suppress(Refused):  # it ended meanwhile
                self.order(task_id, "kill")
        self.until(lambda: not self.unfinished())

    def unfinished(self) -> list[str]:
        counts = self.ask("GET", "/api/health")["tasks"]
        statuses = [status for status in UNFINISHED if counts.get(status)]
        pages = [self.ask("GET", f"/api/tasks?status={status}&limit=1000") for status in statuses]
        return [task["task_id"] for page in pages for task in page]


class Pipe:
    """A gate made of a named pipe: the task reads a line from it, and so waits for one without asking again."""

    def __init__(self, path: Path, seen_as: str) -> None:
        os.mkfifo(path)
        self._path = path
        self.wait = f"read passed < {seen_as}"

    def open(self) -> None:
        """Write the line; raises TimeoutError when no task comes to read it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError as nobody:
                if nobody.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise TimeoutError(f"no task reads from {self._path}") from nobody
            time.sleep(0.01)
        os.write(pipe, b"passed\n")
        os.close(pipe)


class Marks:
    """A directory that host and tasks both see, and the gates in it."""

    def __init__(self, directory: Path, seen_as: str) -> None:
        self.directory, self.seen_as = directory, seen_as
        self._numbers = itertools.count()
        directory.mkdir(parents=True)

    def gate(self) -> Pipe:
        name = f"gate{next(self._numbers)}"
        return Pipe(self.directory / name, f"{self.seen_as}/{name}")
