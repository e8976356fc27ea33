"""What a thousand runners' heartbeats cost the host."""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp

from kohakuriver.host.store import nodes as node_rows
from kohakuriver.host.store import tasks as rows
from kohakuriver.host.store.nodes import NodeRow
from kohakuriver.model import host_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.node import Gpu, Machine, Metrics, Sample
from kohakuriver.model.report import Heartbeat, Report, State, WorkloadState
from kohakuriver.model.task import Task
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.bench import servers
from tests.bench.figures import Bounds, Figure, at_most

RUNNERS, TASKS_EACH, INTERVAL_SECONDS = 1000, 20, 5.0
SETTLE_SECONDS, MEASURE_SECONDS = 7.0, 15.0


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """Share of one core that the host uses while every runner reports 20 running tasks every 5 seconds."""
    from tests.bench.api import fill

    place = folder
    (place / "host").mkdir(parents=True)
    fill(place / "host" / "host.db", 0)
    fill_nodes(place / "host" / "host.db", RUNNERS)
    fill_running(place / "host" / "host.db")
    with servers.host(pyz, place) as host:
        share, late = asyncio.run(_drive(host, load_secret(place / "secret")))
    yield at_most("heartbeats, 1,000 runners x 20 tasks at 5 s", share * 100, "% core", Bounds(absolute=30))
    yield at_most("the slowest answer to one of them, median second", late * 1000, "ms", Bounds(absolute=1000))


def fill_nodes(path: Path, count: int) -> None:
    """Registered nodes, eight GPUs each."""
    gpus = tuple(Gpu(index=i, name="NVIDIA A100-SXM4-80GB", uuid=f"GPU-{i}", memory_bytes=85 * 10**9) for i in range(8))
    machine = Machine(cores=64, memory_bytes=512 * 10**9, gpus=gpus, architecture="x86_64", kernel="6.1.0")
    row = NodeRow(
        hostname="",
        url="http://127.0.0.1:9",
        version="0.1.0",
        engine="docker",
        engine_version="20.10",
        machine=machine,
        registered_at="2026-01-01T00:00:00.000Z",
    )
    with sqlite3.connect(path) as db:
        for number in range(count):
            node_rows.save(db, replace(row, hostname=name_of(number)))
    db.close()


def fill_running(path: Path) -> None:
    """Twenty running tasks on each node."""
    with sqlite3.connect(path) as db:
        for number in range(RUNNERS):
            for place in range(TASKS_EACH):
                rows.insert(db, _running(id_of(number, place), name_of(number)), "bench")
    db.close()


def name_of(number: int) -> str:
    return f"node-{number:04}"


def id_of(number: int, place: int) -> Snowflake:
    return Snowflake(10**15 + number * 100 + place)


def _running(task_id: Snowflake, node: str) -> Task:
    return Task(
        task_id=task_id,
        batch_id=task_id,
        owner="bench",
        command="python",
        arguments=["train.py"],
        status=Status.RUNNING,
        attempt=1,
        tries=1,
        assigned_node=node,
        submitted_at="2026-01-01T00:00:00.000Z",
        started_at="2026-01-01T00:00:01.000Z",
    )


async def _drive(host: servers.Program, secret: bytes) -> tuple[float, float]:
    """Beat for a while; the host's CPU seconds a second, and the median over seconds of the slowest answer."""
    slowest: dict[int, float] = {}
    stop = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as http:
        beats = [asyncio.create_task(_beat(http, host.url, secret, n, (stop, slowest))) for n in range(RUNNERS)]
        await asyncio.sleep(SETTLE_SECONDS)
        slowest.clear()
        began, used = time.monotonic(), host.cpu_seconds()
        await asyncio.sleep(MEASURE_SECONDS)
        share = (host.cpu_seconds() - used) / (time.monotonic() - began)
        stop.set()
        await asyncio.gather(*beats)
    return share, statistics.median(slowest.values())


async def _beat(
    http: aiohttp.ClientSession, url: str, secret: bytes, number: int, shared: tuple[asyncio.Event, dict[int, float]]
) -> None:
    stop, slowest = shared
    name = name_of(number)
    peer = Peer(http, url, Signer(name, secret, SteadyTime()))
    await asyncio.sleep(INTERVAL_SECONDS * number / RUNNERS)
    sequence = 0
    while not stop.is_set():
        sequence += 1
        began = time.monotonic()
        await peer.call(host_api.NODE_HEARTBEAT, _heartbeat(number, name, sequence), timeout_seconds=30)
        took = time.monotonic() - began
        slowest[int(began)] = max(took, slowest.get(int(began), 0.0))
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, INTERVAL_SECONDS - took))
        except TimeoutError:
            continue


def _heartbeat(number: int, name: str, sequence: int) -> Heartbeat:
    states = [
        WorkloadState(
            task_id=id_of(number, place),
            attempt=1,
            state=State.RUNNING,
            started_at=1.0,
            stdout_bytes=sequence * 1000,
        )
        for place in range(TASKS_EACH)
    ]
    now = time.time()
    samples = [Sample(at=now - back, cpu_percent=50.0, memory_used_bytes=10**10) for back in range(5)]
    metrics = Metrics(cpu_percent=50.0, load_1m=1.0, memory_total_bytes=512 * 10**9, memory_used_bytes=10**10)
    report = Report(instance=name, sequence=sequence, workloads=states)
    return Heartbeat(hostname=name, clock=now, metrics=metrics, samples=samples, report=report)
