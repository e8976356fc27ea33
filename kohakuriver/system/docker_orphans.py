"""Containers whose start the daemon began and did not live to remember: whether they ran, and how they end.

Each container has a shim process of its own, which outlives a daemon that is killed. A daemon that comes back does not
know of a container whose start it had not yet written down; started again, such a container would run twice.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SHIM = "containerd-shim"


class Fate(Enum):
    """How far the start of a container had come."""

    ABSENT = "absent"  # nothing of it is there
    PREPARED = "prepared"  # it waits for a word that nobody will speak
    BEGUN = "begun"  # its program runs, or has run


@dataclass(frozen=True, slots=True)
class Orphan:
    """What the machine has of a container; `pids` are the shim and its children."""

    fate: Fate
    pids: tuple[int, ...] = ()


def find_orphan(container_id: str, proc: Path = Path("/proc")) -> Orphan:
    """Look for the shim of a container and at what it has made so far."""
    processes = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    shims = [pid for pid in processes if _is_shim_of(container_id, _words(proc / str(pid)))]
    if not shims:
        return Orphan(Fate.ABSENT)
    children = [pid for pid in processes if _parent(proc / str(pid)) in shims]
    waits = bool(children) and all(_is_runtime(_words(proc / str(pid))) for pid in children)
    return Orphan(Fate.PREPARED if waits else Fate.BEGUN, (*children, *shims))


def end_orphan(orphan: Orphan) -> None:
    """Kill what is left of it; the first process of a container takes all others with it."""
    for pid in orphan.pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []  # it has ended


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _is_shim_of(container_id: str, words: list[str]) -> bool:
    return bool(words) and SHIM in words[0] and container_id in words


def _is_runtime(words: list[str]) -> bool:
    """Whether it is still runc (`runc create`, or `runc init` before it becomes the program)."""
    return bool(words) and os.path.basename(words[0]).startswith("runc")
