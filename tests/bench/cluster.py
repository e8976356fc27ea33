"""Figures of a whole cluster with the process engine: throughput, a burst, memory after many tasks."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import servers
from tests.bench.figures import Bounds, Figure, at_least, at_most

PROCESS = {"KOHAKURIVER_ENGINE": "process", "KOHAKURIVER_PROCESS_ENGINE_ALLOWED": "true"}
THROUGHPUT_TASKS, BURST_TASKS, MANY_TASKS = 1_000, 2_000, 10_000
FREE_TASK = {"command": "true", "required_cores": 0}
FINAL = ("completed", "failed", "killed", "killed_oom", "lost", "stopped", "rejected")


@dataclass(frozen=True, slots=True)
class Client:
    """One kept connection to a host."""

    connection: http.client.HTTPConnection

    @classmethod
    def to(cls, url: str) -> "Client":
        return cls(http.client.HTTPConnection(url.partition("//")[2], timeout=60))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; raises AssertionError from status 400 on."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def submit(self, task: dict[str, Any]) -> str:
        return str(self.ask("POST", "/api/tasks", task)["task_ids"][0])

    def wait(self, task_id: str, pause_seconds: float = 0.002) -> dict[str, Any]:
        """The task once it has ended."""
        while True:
            task: dict[str, Any] = self.ask("GET", f"/api/tasks/{task_id}")
            if task["status"] in FINAL:
                return task
            time.sleep(pause_seconds)

    def counts(self) -> dict[str, int]:
        return dict(self.ask("GET", "/api/health")["tasks"])


@contextmanager
def cluster(
    pyz: Path, folder: Path, names: tuple[str, ...] = ("alpha",)
) -> Iterator[tuple[servers.Program, list[servers.Program]]]:
    """A host and runners with the process engine."""
    folder.mkdir()
    with servers.host(pyz, folder) as host:
        if len(names) == 1:
            with servers.runner(pyz, folder, host.url, PROCESS | {"KOHAKURIVER_RUNNER_HOSTNAME": names[0]}) as one:
                yield host, [one]
        else:
            env = [PROCESS | {"KOHAKURIVER_RUNNER_HOSTNAME": name} for name in names]
            with (
                servers.runner(pyz, folder, host.url, env[0]) as first,
                servers.runner(pyz, folder, host.url, env[1]) as second,
            ):
                yield host, [first, second]


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them, on one cluster after the other."""
    folder.mkdir()
    with cluster(pyz, folder / "one") as (host, (runner,)):
        time.sleep(2)
        idle = host.memory_mb(), runner.memory_mb()
        yield at_least("process engine, end to end", throughput(host.url, THROUGHPUT_TASKS), "tasks/s", Bounds(100))
        early = host.memory_mb(), runner.memory_mb()
        throughput(host.url, MANY_TASKS - THROUGHPUT_TASKS)
        late = host.memory_mb(), runner.memory_mb()
        yield at_most("idle memory, host", idle[0], "MB", Bounds(70))
        yield at_most("idle memory, runner", idle[1], "MB", Bounds(70))
        yield at_most("memory growth 1,000 to 10,000 tasks, host", late[0] - early[0], "MB", Bounds(10))
        yield at_most("memory growth 1,000 to 10,000 tasks, runner", late[1] - early[1], "MB", Bounds(10))
    with cluster(pyz, folder / "two", ("alpha", "beta")) as (host, _):
        yield from burst(host.url)


def throughput(url: str, count: int) -> float:
    """Tasks a second from the first submit until the last is seen completed."""
    client = Client.to(url)
    before = client.counts()["completed"]
    began = time.monotonic()
    feeders = [threading.Thread(target=_feed, args=(url, count // 4)) for _ in range(4)]
    for feeder in feeders:
        feeder.start()
    while client.counts()["completed"] - before < count // 4 * 4:
        time.sleep(0.02)
    took = time.monotonic() - began
    for feeder in feeders:
        feeder.join()
    return count / took


def _feed(url: str, count: int) -> None:
    client = Client.to(url)
    for _ in range(count):
        client.submit(FREE_TASK)


def burst(url: str) -> Iterator[Figure]:
    """2,000 submits at once: all accepted, all end right, no heartbeat late, no node offline."""
    client = Client.to(url)
    oldest, offline, stop = [0.0], [0], threading.Event()
    watcher = threading.Thread(target=_watch_nodes, args=(url, (oldest, offline), stop))
    watcher.start()
    feeders = [threading.Thread(target=_feed, args=(url, BURST_TASKS // 16)) for _ in range(16)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    deadline = time.monotonic() + 180
    while client.counts()["completed"] < BURST_TASKS and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    watcher.join()
    completed = client.counts()["completed"]
    yield at_least("burst of 2,000 submits: ended right", completed, "tasks", Bounds(BURST_TASKS))
    yield at_most("burst: longest silence of a node (heartbeat is 5 s)", oldest[0], "s", Bounds(6.5))
    yield at_most("burst: looks that found a node offline", offline[0], "", Bounds(0))


def _watch_nodes(url: str, seen: tuple[list[float], list[int]], stop: threading.Event) -> None:
    oldest, offline = seen
    client = Client.to(url)
    last: dict[str, tuple[str, float]] = {}
    while not stop.wait(0.1):
        for node in client.ask("GET", "/api/nodes"):
            name, now = node["hostname"], time.monotonic()
            if last.get(name, ("", 0.0))[0] != node["last_heartbeat_at"]:
                last[name] = (node["last_heartbeat_at"], now)
            oldest[0] = max(oldest[0], now - last[name][1])
            offline[0] += node["status"] != "online"
