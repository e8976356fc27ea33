"""The host's table, the part about VPS: life, names, snapshots, who may use them."""

from dataclasses import dataclass

from kohakuriver.model.access import USER_NAME, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import VPS_NAME, Bounds, declare
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.route import Route, table_of
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.vps import (
    MOST_SECONDS,
    TIMESTAMP,
    Snapshot,
    SnapshotId,
    SubmitVps,
    TakeSnapshot,
    Vps,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VpsId:
    task_id: Snowflake = declare("The VPS.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVps:
    """The new VPS; `private_key` (OpenSSH's format) is shown this once, and kept nowhere."""

    vps: Vps
    private_key: str | None = declare("The private half of a generated key.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindVps:
    """A VPS by its name: the caller's own, one that he may use, or OWNER/NAME."""

    name: str = declare("Its name, or OWNER/NAME.", bounds=Bounds(length=128, pattern=rf"({USER_NAME}/)?{VPS_NAME}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartVps:
    task_id: Snowflake = declare("The VPS.")
    snapshot: int | None = declare(
        "The snapshot to go back to; without it the VPS goes on as it stopped.", default=None, bounds=TIMESTAMP
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendVps:
    task_id: Snowflake = declare("The VPS.")
    seconds: int = declare("How long it may go on from now.", bounds=Bounds(least=60, most=MOST_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Somebody who may use a VPS: come in, read and write its files."""

    user_id: Snowflake
    user: str
    assigned_by: str
    assigned_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    task_id: Snowflake = declare("The VPS.")
    user: str = declare("Who may use it.", bounds=Bounds(length=63, pattern=USER_NAME))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unassign:
    task_id: Snowflake = declare("The VPS.")
    user_id: Snowflake = declare("Who may no longer use it.")


R, O = Role, Ownership
V = "/api/vps"
ONE = V + "/{task_id}"
VPS_CREATE = Route("vps.create", "POST", V, SubmitVps, NewVps, R.OPERATOR, "Make a VPS.", success=202)
VPS_LIST = Route("vps.list", "GET", V, ListAll, list[Vps], R.VIEWER, "VPS, newest first.")
VPS_MY = Route("vps.my", "GET", V + "/my", ListMine, list[Vps], R.VIEWER, "VPS the caller owns or may use.")
VPS_FIND = Route("vps.find", "GET", V + "/find", FindVps, VpsId, R.VIEWER, "The id of a VPS by its name.")
VPS_SHOW = Route("vps.status", "GET", ONE, VpsId, Vps, R.VIEWER, "One VPS.", O.TASK_READ)
VPS_STOP = Route("vps.stop", "POST", ONE + "/stop", VpsId, Vps, R.USER, "End it, and keep it.", O.TASK_CONTROL)
VPS_RESTART = Route(
    "vps.restart", "POST", ONE + "/restart", RestartVps, Vps, R.USER, "Start it again, as it was.", O.TASK_CONTROL
)
VPS_PAUSE = Route("vps.pause", "POST", ONE + "/pause", VpsId, Vps, R.USER, "Freeze it.", O.TASK_CONTROL)
VPS_RESUME = Route("vps.resume", "POST", ONE + "/resume", VpsId, Vps, R.USER, "Thaw it.", O.TASK_CONTROL)
VPS_DELETE = Route(
    "vps.delete", "DELETE", ONE, VpsId, Vps, R.USER, "Take it away for ever, with its snapshots.", O.TASK_CONTROL
)
VPS_EXTEND = Route("vps.extend", "POST", ONE + "/extend", ExtendVps, Vps, R.USER, "Prolong its lease.", O.TASK_CONTROL)
VPS_KEY_DELETE = Route(
    "vps.key.delete", "DELETE", ONE + "/key", VpsId, Vps, R.USER, "Take away the SSH key of its own.", O.TASK_CONTROL
)
VPS_SNAPSHOTS = Route(
    "vps.snapshots", "GET", ONE + "/snapshots", VpsId, list[Snapshot], R.VIEWER, "Its snapshots.", O.TASK_READ
)
VPS_SNAPSHOT_TAKE = Route(
    "vps.snapshot.create",
    "POST",
    ONE + "/snapshots",
    TakeSnapshot,
    Snapshot,
    R.USER,
    "Begin to save it; the list tells when that is done.",
    O.TASK_CONTROL,
    202,
)
VPS_SNAPSHOT_DELETE = Route(
    "vps.snapshot.delete",
    "DELETE",
    ONE + "/snapshots/{timestamp}",
    SnapshotId,
    Nothing,
    R.USER,
    "Take a snapshot away.",
    O.TASK_CONTROL,
)
VPS_ASSIGNMENTS = Route(
    "vps.assignments", "GET", ONE + "/assignments", VpsId, list[Assignment], R.VIEWER, "Who may use it.", O.TASK_READ
)
VPS_ASSIGN = Route(
    "vps.assign",
    "POST",
    ONE + "/assignments",
    Assign,
    list[Assignment],
    R.OPERATOR,
    "Let somebody use it.",
    O.TASK_CONTROL,
)
VPS_UNASSIGN = Route(
    "vps.unassign",
    "DELETE",
    ONE + "/assignments/{user_id}",
    Unassign,
    list[Assignment],
    R.OPERATOR,
    "Let somebody use it no longer.",
    O.TASK_CONTROL,
)

ROUTES = table_of(globals())
