"""Figures of files: a large one into a container and out of it, by the client's command, against a plain download."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from tests.bench import servers
from tests.bench.cluster import Client
from tests.bench.figures import Bounds, Figure, at_least, interleaved, timed
from tests.docker_daemon import IMAGE, start_daemon

SIZE_BYTES, ROUNDS = 1_000_000_000, 3
RATIO = 0.5


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """Up and down, client → host → runner → container and back; the floor is aiohttp's own server and client."""
    folder.mkdir()
    _make_file(folder / "big")
    daemon = start_daemon(folder / "daemon")
    try:
        env = {"KOHAKURIVER_DOCKER_SOCKET": daemon.socket}
        with (
            servers.host(pyz, folder) as host,
            servers.runner(pyz, folder, host.url, env),
            servers.bare_server(folder) as bare,
        ):
            there = f"{_workload(Client.to(host.url))}:/big"
            for name, words in (("up", ["put", folder / "big", there]), ("down", ["get", there, folder / "back"])):
                value, floor = interleaved(
                    lambda words=words: _rate(lambda: _run(pyz, host.url, words)),  # type: ignore[misc]
                    lambda: _rate(lambda: asyncio.run(_download(f"{bare.url}/raw/big", folder / "plain"))),
                    ROUNDS,
                )
                yield at_least(
                    f"a file of 1 GB {name}, through host and runner", value, "MB/s", Bounds(None, RATIO, floor)
                )
    finally:
        daemon.stop()


def _make_file(path: Path) -> None:
    block = os.urandom(1_000_000)
    with path.open("wb") as file:
        for _ in range(SIZE_BYTES // len(block)):
            file.write(block)


def _workload(client: Client) -> str:
    """A container that only waits."""
    task = {"command": "sleep", "arguments": ["1000"], "registry_image": IMAGE, "required_cores": 0}
    task_id = client.submit(task)
    while client.ask("GET", f"/api/tasks/{task_id}")["status"] != "running":
        pass
    return task_id


def _rate(work: object) -> float:
    return SIZE_BYTES / 1e6 / timed(work)  # type: ignore[arg-type]


def _run(pyz: Path, url: str, words: list[object]) -> None:
    host, _, port = url.partition("//")[2].partition(":")
    env = {**os.environ, "KOHAKURIVER_HOST": host, "KOHAKURIVER_PORT": port}
    subprocess.run([sys.executable, pyz, "fs", *map(str, words)], env=env, check=True, stdout=subprocess.DEVNULL)


async def _download(url: str, path: Path) -> None:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        with path.open("wb") as file:
            async for chunk in answer.content.iter_any():
                file.write(chunk)
