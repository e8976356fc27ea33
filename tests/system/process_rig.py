"""How tests get at the process engine, and at the processes behind it."""

import os
import time
from pathlib import Path

from kohakuriver.system import process_journal
from kohakuriver.system.engine import ContainerSpec
from kohakuriver.system.process_engine import ProcessEngine
from tests.system.engine_rig import CLUSTER, NODE, Rig

CAN_LIMIT = os.geteuid() == 0 and os.access("/sys/fs/cgroup", os.W_OK)
PATIENCE_SECONDS = 10.0


def process_rig(directory: Path, *, control_groups: bool) -> Rig:
    """A rig for the contract suite."""
    return Rig(
        make=lambda cluster, name: ProcessEngine(directory / "engine", cluster, name, control_groups=control_groups),
        directory=directory,
        kills_on_memory_limit=control_groups and CAN_LIMIT,
        has_own_root=False,
    )


def state_of(directory: Path) -> Path:
    """Where the keeper of the rig keeps its state."""
    return directory / "engine" / f"{CLUSTER}@{NODE}"


def processes_of(directory: Path) -> dict[int, list[str]]:
    """Keepers and supervisors that serve a directory, each with its whole command."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(word.startswith(str(directory)) for word in command):
                found[int(name)] = command
    return found


def keeper_of(directory: Path) -> int | None:
    """The pid of the keeper, if there is one just now."""
    try:
        pid = int((state_of(directory) / "keeper.lock").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in processes_of(directory) else None


def leaves_nothing_behind(directory: Path) -> None:
    """Wait until no keeper and no supervisor serves the directory; fails when one stays."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := processes_of(directory):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def supervisor_of(directory: Path, spec: ContainerSpec) -> int:
    """The pid of the supervisor of a workload, as the journal tells it."""
    journal = state_of(directory) / "workloads" / f"{spec.key.task_id}-{spec.key.attempt}" / "journal"
    return process_journal.read(str(journal))["supervisor"][0]


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
