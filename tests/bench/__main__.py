"""`python -m tests.bench --pyz FILE --out FILE`: take all figures, or those of one group, and write them down."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import (
    accounts,
    api,
    cluster,
    command_line,
    docker_run,
    environments,
    files,
    heartbeats,
    overlay,
    placement,
    sockets,
    ssh,
)
from tests.bench.figures import Figure, show, write, write_readme

GROUPS: dict[str, Callable[[Path, Path], Iterator[Figure]]] = {
    "placement": lambda pyz, folder: placement.figures(),
    "command-line": command_line.figures,
    "api": api.figures,
    "accounts": accounts.figures,
    "heartbeats": heartbeats.figures,
    "cluster": cluster.figures,
    "docker": docker_run.figures,
    "environments": environments.figures,
    "files": files.figures,
    "sockets": sockets.figures,
    "ssh": ssh.figures,
    "overlay": overlay.figures,
}


def main() -> int:
    """Exit status 1 when a figure misses what is wanted."""
    parser = argparse.ArgumentParser("tests.bench", description=__doc__)
    parser.add_argument("--pyz", type=Path, required=True, help="the built file")
    parser.add_argument("--out", type=Path, required=True, help="where the figures go, as JSON")
    parser.add_argument("--only", action="append", choices=list(GROUPS), help="only this group; repeat for more")
    parser.add_argument("--readme", type=Path, help="a page whose table of figures is to be replaced")
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="kohakuriver-bench-", dir="/tmp") as folder:
        for name in asked.only or GROUPS:
            began = time.monotonic()
            print(f"-- {name}", flush=True)
            (Path(folder) / name).mkdir()
            for figure in GROUPS[name](asked.pyz.resolve(), Path(folder) / name / "run"):
                show(figure)
                figures.append(figure)
            print(f"-- {name} took {time.monotonic() - began:.0f} s", flush=True)
    write(figures, asked.out)
    if asked.readme:
        write_readme(figures, asked.readme)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
