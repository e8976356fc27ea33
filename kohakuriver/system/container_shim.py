"""End what containerd has left of a container whose start was cut off: a shim, and a runtime that waits for ever."""

import os
import signal
from contextlib import suppress
from pathlib import Path

SHIM = "containerd-shim"


def end_shim(container_id: str, proc: Path = Path("/proc")) -> None:
    """Kill the shim of a container and its children, as far as we may; no daemon that comes back knows of them."""
    processes = [entry for entry in proc.iterdir() if entry.name.isdigit()]
    shims = {entry.name for entry in processes if _is_shim_of(container_id, entry)}
    children = {entry.name for entry in processes if _parent(entry) in shims} if shims else set()
    for pid in (*children, *shims):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(pid), signal.SIGKILL)


def _is_shim_of(container_id: str, process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False  # it has ended
    return SHIM in words[0] and container_id in words


def _parent(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1]
    except (OSError, IndexError):
        return ""
