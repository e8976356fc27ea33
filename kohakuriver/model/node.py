"""A node: what its machine has, how it feels just now, and what the cluster knows of it."""

from dataclasses import dataclass, field
from enum import StrEnum

from kohakuriver.model.fields import Bounds, declare

NATURAL = Bounds(least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator; memory in bytes, temperature in degrees Celsius, utilization in percent."""

    index: int = declare("Which one.", bounds=NATURAL)
    name: str
    uuid: str = ""
    driver: str = ""
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node of a machine and the logical CPUs that belong to it."""

    index: int = declare("Which one.", bounds=NATURAL)
    cpu_ids: tuple[int, ...]
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine has; it does not change while it is up."""

    cores: int = declare("Logical CPUs.", bounds=NATURAL)
    memory_bytes: int = declare("Memory.", bounds=NATURAL)
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    architecture: str = ""
    kernel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How a machine feels just now; every reading that it does not have is None or empty."""

    cpu_percent: float | None = None
    load_1m: float | None = None
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    disk_total_bytes: int = 0
    disk_used_bytes: int = 0
    temperature_celsius: float | None = None
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One second of a machine's life; `at` is UTC unix seconds, the GPU lists go by index."""

    at: float
    cpu_percent: float | None = None
    memory_used_bytes: int = 0
    gpu_percent: list[float] = field(default_factory=list)
    gpu_memory_used_bytes: list[int] = field(default_factory=list)


class NodeStatus(StrEnum):
    """Whether a node is heard of."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the host tells of it; `*_free` is what a new task could get, times are UTC RFC 3339."""

    hostname: str
    url: str
    status: NodeStatus
    version: str = ""
    engine: str = ""
    engine_version: str = ""
    cores: int = 0
    memory_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    architecture: str = ""
    draining: bool = False
    drain_reason: str = ""
    cores_free: int = 0
    memory_free_bytes: int = 0
    gpus_free: tuple[int, ...] = ()
    tasks_running: int = 0
    metrics: Metrics = field(default_factory=Metrics)
    clock_skew_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    registered_at: str = ""
    last_heartbeat_at: str = ""
