"""The runner's table, the part about attempts, images and itself: only the host may ask, only signed."""

from dataclasses import dataclass, replace

from kohakuriver.model import fields as f
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.image import STEM, NodeImage, SyncState, Tarball
from kohakuriver.model.overlay_part import IPV4
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.route import MEGABYTE, ByteStream, Route, table_of
from kohakuriver.model.task import MAX_COMMAND_CHARACTERS, TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class VpsOrder:
    """What makes an attempt that of a VPS: whether it never ran before, else which snapshot it goes back to.

    Without a snapshot it goes on as it stopped. With `watch_use` its reports say whether something works in it.
    """

    is_new: bool = True
    restore: int | None = None
    watch_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """One attempt to run one task, with what placement gave it.

    `gpus` are indices on this node. `tarball` is the newest of its environment, if there is any. `registry_login` is
    USER:PASSWORD for the pull, and USER: where the password was there.
    """

    task_id: Snowflake
    attempt: int = declare("Which try this is.", bounds=Bounds(least=1))
    owner: str
    spec: TaskSpec
    secret_env: dict[str, str] = declare(
        "Variables whose values nobody is told.", default={}, bounds=Bounds(length=MAX_COMMAND_CHARACTERS)
    )
    gpus: list[int] = declare("GPUs given to it, by index.", default=[])
    numa_node: int | None = None
    tarball: Tarball | None = None
    registry_login: str = ""
    vps: VpsOrder | None = None
    reserved_ip: str | None = declare("Its address in the overlay.", default=None, bounds=IPV4)
    owner_tag: int = declare(
        "By what its owner is known in the overlay.", default=0, bounds=Bounds(least=0, most=0xFFFF)
    )
    rank: int = declare("Which one it is of a task over several nodes.", default=0, bounds=Bounds(least=0))
    ranks: list[str] = declare("The addresses of all of them, by rank; empty for a task on one node.", default=[])
    proof: str = declare("By which the host knows later that this order was its own.", default="")


def without_password(order: Execute) -> Execute:
    """The order as it may be written down."""
    user, colon, _ = order.registry_login.partition(":")
    return replace(order, registry_login=user + colon)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRef:
    """A workload, whichever attempt."""

    task_id: Snowflake


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, by id and number."""

    task_id: Snowflake
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End an attempt: SIGTERM, then SIGKILL after the grace."""

    task_id: Snowflake
    attempt: int
    grace_seconds: float = declare("Time between the two.", default=10.0, bounds=Bounds(least=0, most=3600))
    spare: int | None = declare("The snapshot from which it is to start again.", default=None)


OFFSET_HEADER = "X-Kohakuriver-Offset"  # of an answer with output: where in the file its first byte stands


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOutput:
    """Which bytes of a task's output: from `offset`, or the last `lines`; `follow` goes on until the task ends."""

    task_id: Snowflake
    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))
    lines: int | None = declare("Only the last lines.", default=None, bounds=Bounds(least=0, most=1_000_000))
    follow: bool = declare("Go on as output comes, until the task ends.", default=False)
    attempt: int | None = declare("An earlier attempt, instead of the latest.", default=None, bounds=Bounds(least=1))


@dataclass(frozen=True, slots=True)
class Nothing:
    """No parameters, or no answer but that it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerHealth:
    """Whether the runner is well, and which host it listens to."""

    hostname: str = declare("The node's name.", bounds=Bounds(pattern=f.HOSTNAME))
    version: str
    cluster_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncImage:
    """Which tarball's image the node should have."""

    tarball: Tarball


@dataclass(frozen=True, slots=True, kw_only=True)
class WhichSync:
    stem: str = declare("The tarball.", bounds=Bounds(length=80, pattern=STEM))


N, H = Role.NODE, Ownership.HOST
EXECUTE = Route(
    "execute", "POST", "/api/execute", Execute, WorkloadState, N, "Take on one attempt.", H, 202, 4 * MEGABYTE
)
KILL = Route("kill", "POST", "/api/kill", Kill, WorkloadState, N, "End an attempt.", H, 202)
PAUSE = Route("pause", "POST", "/api/pause", Attempt, WorkloadState, N, "Freeze an attempt.", H)
DISCARD = Route(
    "discard", "POST", "/api/discard", Attempt, Nothing, N, "Take away an attempt and all that is kept of it.", H
)
RESUME = Route("resume", "POST", "/api/resume", Attempt, WorkloadState, N, "Let a frozen attempt go on.", H)
STDOUT = Route("stdout", "GET", "/api/tasks/{task_id}/stdout", ReadOutput, ByteStream, N, "Standard output.", H)
STDERR = Route("stderr", "GET", "/api/tasks/{task_id}/stderr", ReadOutput, ByteStream, N, "Standard error.", H)
IMAGES = Route("images", "GET", "/api/images", Nothing, list[NodeImage], N, "The images of this node.", H)
SYNC = Route("images.sync", "POST", "/api/images/sync", SyncImage, SyncState, N, "Fetch and load a tarball.", H, 202)
SYNC_SHOW = Route("images.sync.show", "GET", "/api/images/sync/{stem}", WhichSync, SyncState, N, "How far it is.", H)
HEALTH = Route("health", "GET", "/api/health", Nothing, RunnerHealth, N, "Whether the runner is well.", H)

ROUTES = table_of(globals())
