"""Figures of the built file itself: size, first start, and how quick the commands are."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench import servers
from tests.bench.figures import Bounds, Figure, at_most, interleaved, timed

ROUNDS = 15


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them."""
    folder.mkdir()
    yield at_most("size of the .pyz", pyz.stat().st_size / 1e6, "MB", Bounds(40))
    yield at_most("first start (unpacks)", first_start(pyz, folder / "unpack"), "s", Bounds(3))
    with servers.host(pyz, folder) as host:
        port = host.url.rpartition(":")[2]
        env = os.environ | {"KOHAKURIVER_PORT": port, "KOHAKURIVER_HOST": "127.0.0.1"}
        for name, words in (("task list", ["task", "list"]), ("--help", ["--help"])):
            value, floor = interleaved(partial(_run, [str(pyz), *words], env), _imports, ROUNDS)
            yield at_most(f"`kohakuriver {name}`, warm", value * 1000, "ms", Bounds(None, 2.5, floor * 1000))


def first_start(pyz: Path, place: Path) -> float:
    """Seconds of `version` where nothing is unpacked yet."""
    taken = []
    for _ in range(3):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        taken.append(_run([str(pyz), "version"], os.environ | {"SHIV_ROOT": str(place)}))
    return statistics.median(taken)


def _run(arguments: list[str], env: dict[str, str]) -> float:
    return timed(lambda: subprocess.run([sys.executable, *arguments], env=env, check=True, capture_output=True))


def _imports() -> float:
    return timed(lambda: subprocess.run([sys.executable, "-c", "import json,urllib.request"], check=True))
