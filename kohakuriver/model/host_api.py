"""The host's table: read this file to know everything the host can be asked."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kohakuriver.model import fields as f
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import JsonObject, Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.node import Node, Sample
from kohakuriver.model.report import NAME, Acknowledged, Changed, Heartbeat, Register, Registered, State
from kohakuriver.model.route import MEGABYTE, ByteStream, Channel, PlainText, Route, table_of
from kohakuriver.model.runner_api import Nothing, ReadOutput
from kohakuriver.model.task import HistoryEntry, SubmitTask, Task

BATCH = Bounds(count=1000, fewest=1, distinct=True)
REASON = Bounds(length=500, pattern=f.NO_CONTROL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskId:
    task_id: Snowflake = declare("The task.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The new tasks, one for each target, in the order of the targets."""

    task_ids: list[Snowflake]
    batch_id: Snowflake


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectTask:
    task_id: Snowflake = declare("The task.")
    reason: str = declare("Why not.", default="", bounds=REASON)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveTasks:
    """Which tasks may run: all of them, or none when one of them does not wait for it."""

    task_ids: list[Snowflake] = declare("The tasks.", bounds=BATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectTasks:
    """Which tasks may not run: all of them, or none when one of them does not wait for it."""

    task_ids: list[Snowflake] = declare("The tasks.", bounds=BATCH)
    reason: str = declare("Why not.", default="", bounds=REASON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostname:
    hostname: str = declare("The node.", bounds=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    hostname: str = declare("The node.", bounds=NAME)
    reason: str = declare("Why, for others to read.", default="", bounds=REASON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A workload on a node that the host's database does not know, as it describes itself; empty: not asked yet."""

    task_id: Snowflake
    attempt: int
    state: State
    task_type: str
    owner: str
    name: str
    started_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRef:
    hostname: str = declare("The node.", bounds=NAME)
    task_id: Snowflake = declare("The workload.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """A node with its last minute, one reading a second, oldest first."""

    hostname: str
    status: str
    cores: int
    cores_free: int
    memory_bytes: int
    gpus: int
    gpus_free: int
    tasks_running: int
    history: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The cluster in one look: totals, tasks by status, each node with its last minute."""

    version: str
    cluster_id: str
    auth_enabled: bool
    nodes_online: int
    nodes_total: int
    cores_total: int
    cores_free: int
    memory_total_bytes: int
    memory_free_bytes: int
    gpus_total: int
    gpus_free: int
    tasks: dict[str, int]
    nodes: list[NodeHealth]


R, O = Role, Ownership
T = "/api/tasks"
TASK_SUBMIT = Route("task.submit", "POST", T, SubmitTask, Submitted, R.USER, "Queue a command.", success=202)
TASK_LIST = Route("task.list", "GET", T, ListAll, list[Task], R.VIEWER, "Tasks, newest first.")
TASK_MY = Route("task.my", "GET", T + "/my", ListMine, list[Task], R.VIEWER, "The caller's tasks, newest first.")
TASK_WAITING = Route(
    "task.pending", "GET", T + "/pending-approval", ListMine, list[Task], R.OPERATOR, "Tasks that wait for a yes."
)
TASK_SHOW = Route("task.status", "GET", T + "/{task_id}", TaskId, Task, R.VIEWER, "One task.", O.TASK_READ)
TASK_HISTORY = Route(
    "task.history",
    "GET",
    T + "/{task_id}/history",
    TaskId,
    list[HistoryEntry],
    R.VIEWER,
    "All that happened to a task.",
    O.TASK_READ,
)
TASK_KILL = Route("task.kill", "POST", T + "/{task_id}/kill", TaskId, Task, R.USER, "End a task.", O.TASK_CONTROL)
TASK_PAUSE = Route("task.pause", "POST", T + "/{task_id}/pause", TaskId, Task, R.USER, "Freeze it.", O.TASK_CONTROL)
TASK_RESUME = Route("task.resume", "POST", T + "/{task_id}/resume", TaskId, Task, R.USER, "Thaw it.", O.TASK_CONTROL)
TASK_APPROVE = Route("task.approve", "POST", T + "/{task_id}/approve", TaskId, Task, R.OPERATOR, "Let it run.")
TASK_REJECT = Route("task.reject", "POST", T + "/{task_id}/reject", RejectTask, Task, R.OPERATOR, "Refuse it.")
TASK_APPROVE_MANY = Route(
    "task.approve-many", "POST", T + "/approve", ApproveTasks, list[Task], R.OPERATOR, "Let several tasks run."
)
TASK_REJECT_MANY = Route(
    "task.reject-many", "POST", T + "/reject", RejectTasks, list[Task], R.OPERATOR, "Refuse several tasks."
)
TASK_STDOUT = Route(
    "task.stdout", "GET", T + "/{task_id}/stdout", ReadOutput, ByteStream, R.VIEWER, "Its output.", O.TASK_READ
)
TASK_STDERR = Route(
    "task.stderr", "GET", T + "/{task_id}/stderr", ReadOutput, ByteStream, R.VIEWER, "Its errors.", O.TASK_READ
)

N = "/api/nodes"
NODE_LIST = Route("node.list", "GET", N, Nothing, list[Node], R.VIEWER, "The nodes.")
NODE_SHOW = Route("node.status", "GET", N + "/{hostname}", Hostname, Node, R.VIEWER, "One node.")
NODE_DRAIN = Route("node.drain", "POST", N + "/{hostname}/drain", Drain, Node, R.ADMIN, "Give it no new tasks.")
NODE_RESUME = Route("node.resume", "POST", N + "/{hostname}/resume", Hostname, Node, R.ADMIN, "Give it tasks again.")
NODE_DELETE = Route("node.delete", "DELETE", N + "/{hostname}", Hostname, Nothing, R.ADMIN, "Forget an offline node.")
NODE_ORPHANS = Route(
    "node.orphan.list",
    "GET",
    N + "/{hostname}/orphans",
    Hostname,
    list[Orphan],
    R.ADMIN,
    "Workloads that the host knows nothing of.",
)
NODE_ORPHAN_REMOVE = Route(
    "node.orphan.remove",
    "DELETE",
    N + "/{hostname}/orphans/{task_id}",
    OrphanRef,
    Nothing,
    R.ADMIN,
    "Take such a workload away, with all that is kept of it.",
)
NODE_REGISTER = Route(
    "node.register",
    "POST",
    N + "/register",
    Register,
    Registered,
    R.NODE,
    "A runner introduces itself.",
    O.NODE,
    body_limit_bytes=16 * MEGABYTE,
)
NODE_HEARTBEAT = Route(
    "node.heartbeat",
    "PUT",
    N + "/{hostname}/heartbeat",
    Heartbeat,
    Acknowledged,
    R.NODE,
    "A runner's sign of life.",
    O.NODE,
    body_limit_bytes=16 * MEGABYTE,
)
NODE_REPORT = Route(
    "node.report",
    "POST",
    N + "/{hostname}/report",
    Changed,
    Acknowledged,
    R.NODE,
    "A runner reports a change.",
    O.NODE,
    body_limit_bytes=16 * MEGABYTE,
)

HEALTH = Route("health", "GET", "/api/health", Nothing, Health, R.VIEWER, "The cluster in one look.")
HEALTHZ = Route("healthz", "GET", "/healthz", Nothing, PlainText, R.ANONY, "Whether the host lives.")
METRICS = Route("metrics", "GET", "/metrics", Nothing, PlainText, R.VIEWER, "Prometheus text.")
OPENAPI = Route("openapi", "GET", "/api/openapi.json", Nothing, JsonObject, R.ANONY, "This table as OpenAPI 3.1.")

ROUTES: tuple[Route[Any, Any], ...]  # the whole table; see `__getattr__`
CHANNELS: tuple[Channel[Any], ...]  # of it, the sockets


@cache
def _whole_table() -> tuple[Route[Any, Any], ...]:
    from kohakuriver.model import auth_api, docker_api, files_api, join_api, overlay_api, ssh_api, vps_api

    others = (auth_api, join_api, ssh_api, docker_api, files_api, vps_api, overlay_api)
    more = (*(route for each in others for route in each.ROUTES), *files_api.environment_routes())
    return (*table_of(globals()), *more)


@cache
def _all_channels() -> tuple[Channel[Any], ...]:
    from kohakuriver.model import docker_api, events, ssh_api, stream_api

    return (*stream_api.CHANNELS, *ssh_api.CHANNELS, *docker_api.CHANNELS, *events.CHANNELS)


def __getattr__(name: str) -> Any:
    """The whole table is put together when somebody asks for it: a command needs no more than the routes it calls."""
    if name == "ROUTES":
        return _whole_table()
    if name == "CHANNELS":
        return _all_channels()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
