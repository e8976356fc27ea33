"""What the machine knows of containers that a daemon which was killed does not: whether they ran, and what to end.

Each container has a shim process of its own, which outlives a daemon that is killed. A daemon that comes back does not
know of a container whose start it had not yet written down; started again, such a container would run twice.
"""

import os
import signal
import socket
import struct
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


def daemon_started_at(path: str, proc: Path = Path("/proc")) -> float | None:
    """When the daemon behind a unix socket started (UTC unix seconds); None when it cannot be told."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1.0)
            line.connect(path)
            peer = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        ticks = int((proc / str(peer[0]) / "stat").read_text().rpartition(")")[2].split()[19])
        booted_at = next(int(t.split()[1]) for t in (proc / "stat").read_text().splitlines() if t.startswith("btime "))
    except (OSError, IndexError, ValueError, StopIteration):
        return None
    return booted_at + ticks / os.sysconf("SC_CLK_TCK")


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
