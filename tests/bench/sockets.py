"""Figures of forwards and terminals: against a plain asyncio relay of two hops, and against the daemon itself."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kohakuriver.model import codec
from kohakuriver.model.execution import ExecSession, ExecSpec
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.model.terminal import BYTES, Kind, frame, split, total_frame
from kohakuriver.model.tunnel import STREAM
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_exec import begin_exec
from kohakuriver.wire import raw
from kohakuriver.wire.raw import RawSocket
from tests.bench import servers
from tests.bench.cluster import Client, cluster
from tests.bench.figures import Bounds, Figure, at_least, at_most, interleaved, percentile
from tests.docker_daemon import IMAGE, Daemon, start_daemon

STREAM_BYTES, TRIPS, ROUNDS = 512_000_000, 2_000, 3
KEYS, OUTPUT_BYTES = 500, 150_000_000
ECHO = ("sh", "-c", "stty raw -echo; echo ready; cat")


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them."""
    folder.mkdir()
    with cluster(pyz, folder / "forward") as (host, _), _floor() as (source_port, relay_port):
        task_id = _running(Client.to(host.url), {"command": "sleep", "arguments": ["1000"], "required_cores": 0})
        target = (host.url, f"/ws/forward/{task_id}/{source_port}")
        value, floor = interleaved(
            lambda: asyncio.run(_stream(target)), lambda: asyncio.run(_plain_stream(relay_port)), ROUNDS
        )
        yield at_least("forward, one stream through host and runner", value, "MB/s", Bounds(None, 0.5, floor))
        value, floor = interleaved(
            lambda: asyncio.run(_trips(target)), lambda: asyncio.run(_plain_trips(relay_port)), ROUNDS
        )
        yield at_most("forward, round trip", value, "µs", Bounds(None, 3, floor))
        Client.to(host.url).ask("POST", f"/api/tasks/{task_id}/kill")
        Client.to(host.url).wait(task_id)
    daemon = start_daemon(folder / "daemon")
    try:
        env = {"KOHAKURIVER_DOCKER_SOCKET": daemon.socket}
        with servers.host(pyz, folder) as docker_host, servers.runner(pyz, folder, docker_host.url, env):
            yield from _terminal(docker_host.url, daemon)
    finally:
        daemon.stop()


def _terminal(url: str, daemon: Daemon) -> Iterator[Figure]:
    task = {"command": "sleep", "arguments": ["1000"], "registry_image": IMAGE, "required_cores": 0}
    task_id = _running(Client.to(url), task)
    ours, alone = asyncio.run(_keys(url, task_id, daemon))
    for name, share, limit_ms in (("p50", 0.5, 3.0), ("p99", 0.99, 15.0)):
        added = (percentile(ours, share) - percentile(alone, share)) * 1000
        yield at_most(f"terminal, echo of a key above docker exec, {name}", added, "ms", Bounds(limit_ms))
    value, floor = interleaved(
        lambda: asyncio.run(_output(url, task_id)), lambda: asyncio.run(_local_output(daemon, task_id)), ROUNDS
    )
    yield at_least("terminal, bulk output (floor: the daemon alone)", value, "MB/s", Bounds(40, None, floor))


def _running(client: Client, task: dict[str, object]) -> str:
    task_id = client.submit(task)
    while client.ask("GET", f"/api/tasks/{task_id}")["status"] != "running":
        time.sleep(0.02)
    return task_id


@contextmanager
def _floor() -> Iterator[tuple[int, int]]:
    """A source, and two plain relays one behind the other that lead to it."""
    ports = [servers.free_port() for _ in range(3)]
    words = [
        ["source", str(ports[0])],
        ["relay", str(ports[1]), str(ports[0])],
        ["relay", str(ports[2]), str(ports[1])],
    ]
    command = [sys.executable, "-m", "tests.bench.relay_server"]
    programs = [subprocess.Popen([*command, *each], cwd=servers.ROOT) for each in words]
    try:
        time.sleep(2)
        yield ports[0], ports[2]
    finally:
        for program in programs:
            program.kill()
            program.wait()


async def _dial(url: str, path: str, protocol: str) -> RawSocket:
    host, _, port = url.partition("//")[2].partition(":")
    answered = await raw.dial(raw.Address(host, int(port)), path, {}, protocol)
    assert answered.socket is not None, answered
    return answered.socket


async def _stream(target: tuple[str, str]) -> float:
    socket, left = await _dial(*target, STREAM), STREAM_BYTES
    began = time.perf_counter()
    await socket.send(b"%d\n" % STREAM_BYTES)
    while left > 0 and (data := await socket.receive()):
        left -= len(data)
    assert left == 0
    took = time.perf_counter() - began
    await socket.close()
    return STREAM_BYTES / took / 1e6


async def _plain_stream(port: int) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began, left = time.perf_counter(), STREAM_BYTES
    writer.write(b"%d\n" % STREAM_BYTES)
    while left > 0 and (data := await reader.read(65536)):
        left -= len(data)
    assert left == 0
    took = time.perf_counter() - began
    writer.close()
    return STREAM_BYTES / took / 1e6


async def _trips(target: tuple[str, str]) -> float:
    socket = await _dial(*target, STREAM)
    await socket.send(b"0\n")
    took = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        await socket.send(b"x")
        await socket.receive()
        took.append(time.perf_counter() - began)
    await socket.close()
    return statistics.median(took) * 1e6


async def _plain_trips(port: int) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"0\n")
    took = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        writer.write(b"x")
        await reader.read(1)
        took.append(time.perf_counter() - began)
    writer.close()
    return statistics.median(took) * 1e6


async def _open_terminal(url: str, task_id: str, argv: tuple[str, ...]) -> RawSocket:
    socket = await _dial(url, f"/ws/task/{task_id}/terminal", BYTES)
    start = codec.encoder(StartTerminal)(StartTerminal(argv=list(argv)))
    await socket.send(frame(Kind.START, codec.dumps(start).encode()))
    return socket


async def _keys(url: str, task_id: str, daemon: Daemon) -> tuple[list[float], list[float]]:
    """Seconds from a key to its echo: through host and runner, and of a process that the daemon started itself."""
    socket = await _open_terminal(url, task_id, ECHO)
    while b"ready" not in str(await socket.receive()).encode():
        pass
    client = DockerClient(daemon.socket)
    local = await begin_exec(client, f"kohakuriver-task-{task_id}", ExecSpec(argv=ECHO, tty=True), "bench")
    while b"ready" not in ((await local.read()) or (0, b""))[1]:
        pass
    await asyncio.sleep(0.2)
    ours, floor = [], []
    for _ in range(KEYS):
        ours.append(await _key(socket))
        floor.append(await _local_key(local))
        await asyncio.sleep(0.002)
    await local.close()
    await socket.close()
    return ours, floor


async def _key(socket: RawSocket) -> float:
    began = time.perf_counter()
    await socket.send(frame(Kind.INPUT, b"k"))
    while (message := await socket.receive()) is None or split(message) != (Kind.OUTPUT, b"k"):
        assert message is not None
    return time.perf_counter() - began


async def _local_key(local: ExecSession) -> float:
    began = time.perf_counter()
    await local.write(b"k")
    while (await local.read()) != (1, b"k"):
        pass
    return time.perf_counter() - began


async def _local_output(daemon: Daemon, task_id: str) -> float:
    """The same of a process that the daemon started itself."""
    spec = ExecSpec(argv=_pour(), tty=True)
    began, total = time.perf_counter(), 0
    local = await begin_exec(DockerClient(daemon.socket), f"kohakuriver-task-{task_id}", spec, "bench")
    while (piece := await local.read()) is not None:
        total += len(piece[1])
    took = time.perf_counter() - began
    await local.close()
    return total / took / 1e6


def _pour() -> tuple[str, ...]:
    return "sh", "-c", f"stty raw; head -c {OUTPUT_BYTES} /dev/zero"


async def _output(url: str, task_id: str) -> float:
    """MB a second that a program on a terminal writes and we read."""
    began, total, confirmed = time.perf_counter(), 0, 0
    socket = await _open_terminal(url, task_id, _pour())
    while (message := await socket.receive()) is not None:
        kind, payload = split(message)
        if kind is Kind.EXIT:
            break
        total += len(payload) if kind is Kind.OUTPUT else 0
        if total - confirmed >= 65536:
            confirmed = total
            await socket.send(total_frame(Kind.RECEIVED, total))
    assert total == OUTPUT_BYTES, total
    took = time.perf_counter() - began
    await socket.close()
    return OUTPUT_BYTES / took / 1e6
