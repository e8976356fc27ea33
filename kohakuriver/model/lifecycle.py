"""The life of a workload: the only table that says which status may follow which."""

from enum import StrEnum

from kohakuriver.model.errors import Conflict


class Status(StrEnum):
    PENDING_APPROVAL = "pending_approval"
    REJECTED = "rejected"
    PENDING = "pending"
    ASSIGNING = "assigning"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    KILLED_OOM = "killed_oom"
    LOST = "lost"
    STOPPED = "stopped"


class Event(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"
    PLACED = "placed"
    RETURNED = "returned"  # the runner refused, or was gone before it answered: another try elsewhere
    REFUSED = "refused"  # the runner refused for a reason that holds everywhere
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXITED_OK = "exited_ok"
    EXITED_BAD = "exited_bad"
    OOM_KILLED = "oom_killed"
    KILLED = "killed"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    NODE_LOST = "node_lost"
    FOUND_ALIVE = "found_alive"
    FOUND_STARTING = "found_starting"
    ADOPTED = "adopted"  # a node proved to have a later attempt than the row knows
    RETRIED = "retried"  # the attempt failed or was lost, and the retry policy grants another


class Desired(StrEnum):
    """What somebody wants of a workload; it becomes its status only when it is true."""

    RUN = "run"
    PAUSE = "pause"
    KILL = "kill"
    STOP = "stop"


S, E = Status, Event
ON_NODE = frozenset({S.ASSIGNING, S.RUNNING, S.PAUSED})  # holds resources of its node
UNFINISHED = frozenset({S.PENDING_APPROVAL, S.PENDING, S.LOST}) | ON_NODE
FINAL = frozenset(Status) - UNFINISHED  # `lost` may come back, so it is not counted as final
ADOPTABLE = UNFINISHED - {S.PENDING_APPROVAL} | {S.STOPPED}  # may be older than the truth, in a restored database
ENDS = {E.EXITED_OK: S.COMPLETED, E.EXITED_BAD: S.FAILED, E.OOM_KILLED: S.KILLED_OOM}

NEXT: dict[tuple[Status, Event], Status] = {
    (S.PENDING_APPROVAL, E.APPROVED): S.PENDING,
    (S.PENDING_APPROVAL, E.REJECTED): S.REJECTED,
    (S.PENDING, E.PLACED): S.ASSIGNING,
    (S.ASSIGNING, E.RETURNED): S.PENDING,
    (S.ASSIGNING, E.REFUSED): S.FAILED,
    (S.ASSIGNING, E.STARTED): S.RUNNING,
    (S.RUNNING, E.PAUSED): S.PAUSED,
    (S.PAUSED, E.RESUMED): S.RUNNING,
    (S.LOST, E.FOUND_ALIVE): S.RUNNING,
    (S.LOST, E.FOUND_STARTING): S.ASSIGNING,
    (S.LOST, E.RETURNED): S.PENDING,  # the truth about it is that it never ran
    (S.LOST, E.REFUSED): S.FAILED,
    (S.STOPPED, E.RESTARTED): S.PENDING,
    (S.STOPPED, E.KILLED): S.KILLED,  # nothing of it is left
    (S.PENDING, E.STOPPED): S.STOPPED,  # it waited to be started again, and is no longer wanted
    **{(status, E.KILLED): S.KILLED for status in UNFINISHED},
    **{(status, E.NODE_LOST): S.LOST for status in ON_NODE},
    **{(status, E.ADOPTED): S.LOST for status in ADOPTABLE},
    **{(status, E.RETRIED): S.PENDING for status in ON_NODE | {S.LOST}},
    **{(status, E.STOPPED): S.STOPPED for status in ON_NODE | {S.LOST}},
    **{(status, end): final for status in ON_NODE | {S.LOST} for end, final in ENDS.items()},
}


def after(status: Status, event: Event) -> Status:
    """The status that follows; raises Conflict when the event cannot happen to a workload in this status."""
    try:
        return NEXT[status, event]
    except KeyError:
        raise Conflict(f"a {status} task cannot be {event}") from None
