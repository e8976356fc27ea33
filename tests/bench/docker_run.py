"""Figures of a cluster on a real Docker daemon, against what the same daemon does when it is driven by hand."""

import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import servers
from tests.bench.cluster import Client
from tests.bench.engine_proxy import EngineProxy
from tests.bench.figures import Bounds, Figure, at_least, at_most, interleaved, percentile
from tests.docker_daemon import IMAGE, Daemon, UnixConnection, exchange, start_daemon

CONCURRENCY, EACH_ROUND, ROUNDS = 4, 24, 3
SERIAL_ROUNDS, DELAYS = 12, 40


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them, on one private daemon."""
    folder.mkdir()
    daemon = start_daemon(folder / "daemon")
    try:
        with EngineProxy(daemon.socket, str(folder / "proxy.sock")) as proxy:
            env = {"KOHAKURIVER_DOCKER_SOCKET": str(folder / "proxy.sock")}
            with servers.host(pyz, folder) as host, servers.runner(pyz, folder, host.url, env):
                client = Client.to(host.url)
                client.wait(client.submit(_true()))
                yield throughput(host.url, daemon)
                yield from added_delay(client, proxy)
                yield serial(client, daemon)
    finally:
        daemon.stop()


def _true() -> dict[str, object]:
    return {"command": "true", "registry_image": IMAGE, "required_cores": 0}


def throughput(url: str, daemon: Daemon) -> Figure:
    """Tasks a second with so many in flight, against a bare create-start-wait-remove loop."""
    value, floor = interleaved(lambda: _through_host(url), lambda: _by_hand(daemon), ROUNDS)
    return at_least("real Docker, end to end, 4 at once", value, "tasks/s", Bounds(None, 0.9, floor))


def _in_parallel(work: Callable[[int], None]) -> float:
    """Calls a second of `work`, in CONCURRENCY threads."""
    threads = [threading.Thread(target=work, args=(EACH_ROUND // CONCURRENCY,)) for _ in range(CONCURRENCY)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return EACH_ROUND / (time.monotonic() - began)


def _through_host(url: str) -> float:
    def work(count: int) -> None:
        client = Client.to(url)
        for _ in range(count):
            if client.wait(client.submit(_true()), 0.01)["status"] != "completed":
                raise AssertionError("a task did not complete")

    return _in_parallel(work)


def _by_hand(daemon: Daemon) -> float:
    def work(count: int) -> None:
        connection = UnixConnection(daemon.socket)
        for _ in range(count):
            body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"LogConfig": {"Type": "local"}, "Init": True}}
            made = exchange(connection, "POST", "/containers/create", body)["Id"]
            exchange(connection, "POST", f"/containers/{made}/start", None)
            exchange(connection, "POST", f"/containers/{made}/wait", None)
            exchange(connection, "DELETE", f"/containers/{made}", None)

    return _in_parallel(work)


def added_delay(client: Client, proxy: EngineProxy) -> Iterator[Figure]:
    """From the submit to the moment the daemon is asked to start the container, on an idle cluster.

    What the daemon itself takes to create the container in between is its own and is taken off.
    """
    delays = []
    for _ in range(DELAYS):
        proxy.calls.clear()
        began = time.monotonic()
        client.wait(client.submit(_true()))
        delays.append(proxy.started_at() - began - proxy.create_seconds())
        time.sleep(0.05)
    yield at_most("added delay to the start call, p50", percentile(delays, 0.5) * 1000, "ms", Bounds(15))
    yield at_most("added delay to the start call, p99", percentile(delays, 0.99) * 1000, "ms", Bounds(60))


def serial(client: Client, daemon: Daemon) -> Figure:
    """One `true` after another, submit to completed visible, against `docker run --rm`."""
    ours, theirs = [], []
    command = [shutil.which("docker") or "docker", "-H", daemon.url, "run", "--rm", "--init", IMAGE, "true"]
    for _ in range(SERIAL_ROUNDS):
        began = time.monotonic()
        client.wait(client.submit(_true()))
        ours.append(time.monotonic() - began)
        began = time.monotonic()
        subprocess.run(command, check=True)
        theirs.append(time.monotonic() - began)
    value, floor = statistics.median(ours), statistics.median(theirs)
    return at_most("submit to completed, serial `true`", value * 1000, "ms", Bounds(None, 1.1, floor * 1000))
