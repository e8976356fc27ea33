"""What becomes of the members of a gang when one of them ends or returns: pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from kohakuriver.host.store.gangs import Member
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import FINAL, ON_NODE, Desired, Status

FAILED = FINAL - {Status.COMPLETED}


class Act(StrEnum):
    """What is done to a member."""

    END = "end"  # another one failed
    RETURN = "return"  # another one waits again: all of them start anew, together


@dataclass(frozen=True, slots=True)
class Settled:
    """What to do: acts on members with the reason, and gangs that are over."""

    acts: list[tuple[Member, Act, str]] = field(default_factory=list)
    over: list[Snowflake] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gangs:
    """Gangs in the queue: for each member the ids of all of them; `waits` says why one is not placed."""

    of: dict[Snowflake, tuple[Snowflake, ...]] = field(default_factory=dict)
    waits: dict[Snowflake, str] = field(default_factory=dict)
    _met: dict[Snowflake, list[Queued]] = field(default_factory=dict)

    def gather(self, task: Queued) -> list[Queued]:
        """The whole gang, when this is the last of it to be met in the queue; empty before."""
        ids = self.of[task.task_id]
        met = self._met.setdefault(ids[0], [])
        met.append(task)
        return met if len(met) == len(ids) else []

    def placed(self, task: Queued) -> None:
        """The gang of this task waits no more."""
        for task_id in self.of[task.task_id]:
            self.waits.pop(task_id, None)


def waiting(members: Iterable[Member]) -> Gangs:
    """The gangs that have members in the queue."""
    found = Gangs()
    for _, group in groupby(members, lambda member: member.gang):
        gang = list(group)
        ids = tuple(member.task_id for member in gang)
        for member in gang:
            if member.status is Status.PENDING:
                found.of[member.task_id] = ids
                found.waits[member.task_id] = f"waits until all {member.size} tasks of its group may start"
    return found


def settle(members: Iterable[Member]) -> Settled:
    """What to do so that the members of each gang share one fate."""
    settled = Settled()
    for gang, group in groupby(members, lambda member: member.gang):
        standing = list(group)
        if all(member.status in FINAL for member in standing):
            settled.over.append(gang)
        else:
            settled.acts.extend(_settle(standing))
    return settled


def _settle(gang: Sequence[Member]) -> list[tuple[Member, Act, str]]:
    rest = [member for member in gang if member.status not in FINAL and member.desired is not Desired.KILL]
    failed = [member for member in gang if member.status in FAILED or member.status is Status.LOST]
    if failed and gang[0].stops_together:
        why = f"rank {failed[0].rank} of its group is {failed[0].status}"
        return [(member, Act.END, why) for member in rest if member not in failed]
    back = [member for member in rest if member.status is Status.PENDING]
    running = [member for member in rest if member.status in ON_NODE]
    is_cut = any(member.status in FINAL for member in gang)
    if back and is_cut:  # it can never be whole again
        return [(member, Act.END, "others of its group are over already") for member in back]
    why = f"rank {back[0].rank} of its group waits again" if back else ""
    return [(member, Act.RETURN, why) for member in running] if back else []
