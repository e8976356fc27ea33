"""The runner's table, the part about VPS."""

from dataclasses import dataclass

from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import NO_CONTROL, Bounds, declare
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.route import MEGABYTE, Route, table_of
from kohakuriver.model.runner_api import Execute, Kill, Nothing, TaskRef
from kohakuriver.model.vps import Snapshot, SnapshotId, TakeSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class TellInside:
    """What whoever is in a VPS should know."""

    task_id: Snowflake
    attempt: int
    text: str = declare("One line.", bounds=Bounds(length=500, pattern=NO_CONTROL))


N, H = Role.NODE, Ownership.HOST
V = "/api/vps"
CREATE_VPS = Route(
    "vps.create", "POST", V + "/create", Execute, WorkloadState, N, "Take on the first attempt.", H, 202, 4 * MEGABYTE
)
RESTART_VPS = Route(
    "vps.restart",
    "POST",
    V + "/{task_id}/restart",
    Execute,
    WorkloadState,
    N,
    "Take on an attempt that goes on with what is kept.",
    H,
    202,
    4 * MEGABYTE,
)
STOP_VPS = Route("vps.stop", "POST", V + "/{task_id}/stop", Kill, WorkloadState, N, "End it and keep it.", H, 202)
DELETE_VPS = Route("vps.delete", "DELETE", V + "/{task_id}", TaskRef, Nothing, N, "Take away all that is kept.", H)
SNAPSHOTS = Route(
    "vps.snapshots", "GET", V + "/{task_id}/snapshots", TaskRef, list[Snapshot], N, "What is saved of it.", H
)
TAKE_SNAPSHOT = Route(
    "vps.snapshot.create", "POST", V + "/{task_id}/snapshots", TakeSnapshot, Snapshot, N, "Begin to save it.", H, 202
)
DELETE_SNAPSHOT = Route(
    "vps.snapshot.delete",
    "DELETE",
    V + "/{task_id}/snapshots/{timestamp}",
    SnapshotId,
    Nothing,
    N,
    "Take a snapshot away.",
    H,
)
TELL_INSIDE = Route(
    "vps.tell", "POST", V + "/{task_id}/tell", TellInside, Nothing, N, "Write a line into its open terminals.", H
)

ROUTES = table_of(globals())
