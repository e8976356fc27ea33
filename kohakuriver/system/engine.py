"""What an engine is: the protocol by which a runner makes, watches and removes workloads on its node.

Every implementation (docker, process, and the fake of the tests) passes one contract suite.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from kohakuriver.model.execution import ExecSession, ExecSpec, Inside
from kohakuriver.system.image_hands import ImageHands
from kohakuriver.system.rooted import Root

STDOUT_NAME, STDERR_NAME = "stdout", "stderr"


def cut_marker(log_limit_bytes: int) -> bytes:
    """The line that stands in a log file where the output was cut."""
    return f"\n[kohakuriver: output cut here at {log_limit_bytes} bytes]\n".encode()


class WorkloadKey(NamedTuple):
    """One try to run one workload."""

    task_id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the node shown inside the workload."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """Everything an engine may be told about a workload; what is not here cannot be asked for.

    `command` is the program and its arguments exactly as they reach `execve`. `cpu_count` 0 and `memory_bytes`
    None mean no limit. `address` and `mac` are its own in the `network`; `hosts` are names it knows, with their addresses. `cpu_ids` and `numa_node` pin when given. `log_directory` receives the files `stdout` and
    `stderr`, byte-exact up to `log_limit_bytes` each, followed by one visible marker line where they were cut.
    """

    key: WorkloadKey
    name: str
    image: str
    command: tuple[str, ...]
    log_directory: Path
    log_limit_bytes: int
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    cpu_count: int = 0
    cpu_ids: tuple[int, ...] = ()
    numa_node: int | None = None
    memory_bytes: int | None = None
    gpu_ids: tuple[str, ...] = ()
    pids_limit: int = 0
    shm_bytes: int = 0
    mounts: tuple[Mount, ...] = ()
    privileged: bool = False
    network: str = ""
    address: str = ""
    mac: str = ""
    hosts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Phase(StrEnum):
    """Where a workload stands, as the engine sees it."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a workload ended: `code` as the program gave it (128+n when signal n ended it, as shells say it).

    `code` is None when the engine itself lost it.
    """

    code: int | None
    signal: int | None = None
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at one workload; times are UTC unix seconds, `exit` stands only when `phase` is EXITED."""

    key: WorkloadKey
    phase: Phase
    exit: Exit | None = None
    started_at: float | None = None
    finished_at: float | None = None
    is_vps: bool = False


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine is and can do, for registration and for the person who asks."""

    name: str
    version: str
    limits_memory: bool
    limits_cpu: bool
    gpus: bool


TYPE_LABEL, VPS_TYPE = "kohakuriver.type", "vps"
# Names of variables that what is made of a snapshot must not get, with commas between.
SECRETS_LABEL = "kohakuriver.secrets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A snapshot of a VPS: `timestamp` (UTC unix seconds) is its name, `image` what a container is made from it by.

    What was written before `began_at` is in it.
    `size_bytes` is what it holds beyond what it was made from, `total_bytes` all that it shows.
    """

    timestamp: int
    image: str
    message: str = ""
    automatic: bool = False
    began_at: float = 0.0
    size_bytes: int = 0
    total_bytes: int = 0


class Workspaces(Protocol):
    """Hands for the VPS of one node: their containers stay when they end, and are saved as snapshots.

    A snapshot is there whole or not at all, whatever dies meanwhile. Errors as those of an engine.
    """

    async def start_again(self, key: WorkloadKey) -> None:
        """Start one that exited once more, with the files that it has; a no-op when it runs."""

    async def is_adrift(self, key: WorkloadKey) -> bool:
        """Whether the engine itself does not know that it runs, and so lets nobody in."""

    async def containers(self, task_id: int) -> list[Observed]:
        """Every container of a VPS, the one of the latest attempt last."""

    async def changed_since(self, key: WorkloadKey, moment: float) -> bool:
        """Whether some file of its may have changed after that moment (UTC unix seconds); in doubt, yes."""

    async def cpu_seconds(self, key: WorkloadKey) -> float:
        """The processor time that it has taken since it was started."""

    async def lacks_room(self, key: WorkloadKey, reserve_bytes: int) -> str:
        """Why a snapshot of it would leave less than the reserve on the disk; empty text when it would not."""

    async def take(self, key: WorkloadKey, saved: Saved) -> None:
        """Save it under the timestamp, message and kind that `saved` says; its processes stand still meanwhile."""

    async def snapshots(self, task_id: int) -> list[Saved]:
        """All that there are of a VPS, oldest first."""

    async def delete_snapshot(self, task_id: int, timestamp: int) -> None:
        """Take a snapshot away; raises NotFound. A VPS that was made from it goes on."""

    async def sweep(self, task_id: int) -> None:
        """Take away what snapshots left that were not finished, or that nothing needs any more."""


class Engine(Protocol):
    """Hands for one node; every method may be called again after a crash with the same effect.

    Engines know only workloads that carry their own cluster id and node name. Errors: `EngineFailed` (with
    `retry_elsewhere` when another node might do better: daemon down, disk full; not for a missing program),
    `NotFound` for a key that the engine does not have. `workspaces` is None where no VPS can be.
    """

    @property
    def images(self) -> ImageHands | None:
        """Hands for its images; None when it has none."""

    @property
    def workspaces(self) -> Workspaces | None:
        """What it can do with a workload of which the container outlives its end."""

    async def open(self) -> None:
        """Connect, begin to listen for events; raises EngineFailed when the engine cannot be reached."""

    async def close(self) -> None:
        """Let go of everything of ours; workloads go on."""

    async def describe(self) -> EngineInfo:
        """Ask the engine who it is; raises EngineFailed when it does not answer."""

    async def ensure_image(self, image: str) -> None:
        """Return when the image is on the node, pulling it if the name has a registry; raises EngineFailed."""

    async def create(self, spec: ContainerSpec) -> None:
        """Make the workload without starting it; an older attempt under the same name is removed first."""

    async def start(self, spec: ContainerSpec) -> None:
        """Start it and begin to copy its output into the log files; a no-op when it already started."""

    async def adopt(self, spec: ContainerSpec) -> None:
        """Take over a workload found alive after a restart: its output is complete again, nothing doubled."""

    async def signal(self, key: WorkloadKey, number: int) -> None:
        """Send a signal to the workload (to every process of it where there is no init); a no-op once it exited."""

    async def pause(self, key: WorkloadKey) -> None:
        """Freeze every process of it; a no-op when frozen; raises Conflict when it has exited."""

    async def resume(self, key: WorkloadKey) -> None:
        """Thaw it; a no-op when not frozen; raises Conflict when it has exited."""

    async def observe(self, key: WorkloadKey) -> Observed:
        """Look at one workload now; raises NotFound."""

    async def observe_all(self) -> list[Observed]:
        """Look at all of ours, whatever their state."""

    async def finish_logs(self, spec: ContainerSpec) -> None:
        """Return when the log files of an exited workload hold its whole output (up to the limit) on disk."""

    async def remove(self, key: WorkloadKey) -> None:
        """Take it away, killing what still runs; a no-op when it is not there. Log files stay."""

    async def exec(self, key: WorkloadKey, spec: ExecSpec) -> ExecSession:
        """Start another process inside a running workload; raises NotFound, Conflict when it does not run."""

    async def inside(self, key: WorkloadKey) -> Inside:
        """A process of a running workload, by which its root and network are found; raises NotFound, Conflict."""

    async def open_root(self, key: WorkloadKey, writable: bool) -> Root:
        """The workload's files, also of one that does not run; whoever asked closes it.

        Raises NotFound, Conflict while it is neither, NotAllowed where a workload has no root of its own.
        """

    def events(self) -> AsyncIterator[WorkloadKey]:
        """Keys of workloads about which something changed; may repeat, may miss while the engine is away."""
