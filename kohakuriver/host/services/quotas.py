"""What all members of a group may have at once, together: checked at submit and again when tasks are placed.

A task that its group has no room for claims room in it: what comes behind it in the queue may use only what it leaves
over. So within a group, too, nothing small starves something big. A task of somebody in several groups counts in each.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kohakuriver.host.services.node_manager import Demand, Rank
from kohakuriver.host.store import groups, vps
from kohakuriver.host.store.groups import Held
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model import codec
from kohakuriver.model.auth_api import Group, Quota
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotAllowed, TooMany
from kohakuriver.model.units import show_bytes

Amounts = tuple[int, int, int, int]  # tasks, cores, GPUs, bytes of memory
KINDS = ("running", "cores", "gpus", "memory_bytes")
WORDS = ("tasks on nodes", "cores", "GPUs", "memory")


@dataclass(slots=True)
class GroupRoom:
    """One group during one pass; a limit of None is none."""

    name: str
    limits: tuple[int | None, ...]
    used: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    held: list[tuple[Rank, Amounts]] = field(default_factory=list)
    claimant: Snowflake | None = None
    left_over: list[int] = field(default_factory=list)

    def take(self, rank: Rank, amounts: Amounts) -> None:
        """Some member has this now."""
        self.held.append((rank, amounts))
        self.used = [a + b for a, b in zip(self.used, amounts, strict=True)]
        if self.claimant is not None:
            self.left_over = [a - b for a, b in zip(self.left_over, amounts, strict=True)]

    def why_not(self, wanted: Amounts) -> str:
        """Why a member cannot have this now; empty text when he can."""
        for kind, limit in enumerate(self.limits):
            if limit is not None and wanted[kind] and self.used[kind] + wanted[kind] > limit:
                told = [_told(kind, amount) for amount in (limit, self.used[kind], wanted[kind])]
                return f"group {self.name}: {told[0]} {WORDS[kind]} allowed (max_{KINDS[kind]}), {told[1]} in use, {told[2]} asked"
        if self.claimant is not None:
            for kind, limit in enumerate(self.limits):
                if limit is not None and wanted[kind] > max(0, self.left_over[kind]):
                    return f"group {self.name}: held for task {self.claimant}, which waits longer"
        return ""

    def claim(self, task: Queued, wanted: Amounts) -> None:
        """Keep room for a task that waits for it, if it can ever have it and nobody claimed before."""
        if self.claimant is not None or never_fits(self.limits, wanted):
            return
        self.claimant, rank = task.task_id, (-task.priority, task.task_id)
        behind = [amounts for held_rank, amounts in self.held if held_rank > rank]
        self.left_over = [
            (limit or 0) - wanted[kind] - sum(amounts[kind] for amounts in behind)
            for kind, limit in enumerate(self.limits)
        ]


@dataclass(slots=True)
class Allowance:
    """The groups during one pass; `waits` says of each task that was passed over which quota is why."""

    rooms_of: Mapping[str, Sequence[GroupRoom]] = field(default_factory=dict)
    waits: dict[Snowflake, str] = field(default_factory=dict)
    _known: dict[tuple[str, Demand], str] = field(default_factory=dict)

    def refuses(self, task: Queued, demand: Demand) -> bool:
        """Whether some group of its owner has no room for it; remembers why."""
        rooms = self.rooms_of.get(task.owner)
        if not rooms:
            return False
        key = (task.owner, demand)
        why = self._known.get(key)  # room only shrinks during a pass, so a no stays a no
        if why is None:
            wanted = _amounts(demand)
            lacking = {room.name: reason for room in rooms if (reason := room.why_not(wanted))}
            if not lacking:
                return False
            for room in rooms:
                if room.name in lacking:
                    room.claim(task, wanted)
            why = self._known[key] = "\n".join(lacking.values())
        self.waits[task.task_id] = why
        return True

    def take(self, task: Queued, demand: Demand) -> None:
        """It was placed."""
        for room in self.rooms_of.get(task.owner, ()):
            room.take((-task.priority, task.task_id), _amounts(demand))


def allowance_of(tx: sqlite3.Connection) -> Allowance:
    """What all groups with a limit have left just now."""
    limited = [group for group in groups.every(tx) if any(limit is not None for limit in _limits(group))]
    if not limited:
        return Allowance()
    return share_out(limited, groups.held(tx))


def share_out(limited: Iterable[Group], held: Iterable[Held]) -> Allowance:
    """The room of groups, given what their members hold."""
    rooms_of: dict[str, list[GroupRoom]] = {}
    for group in limited:
        room = GroupRoom(group.name, _limits(group))
        for member in group.members:
            rooms_of.setdefault(member, []).append(room)
    for row in held:
        gpus = len(codec.loads(row.gpus)) if row.gpus != "[]" else 0
        for room in rooms_of.get(row.owner, ()):
            room.take((-row.priority, row.task_id), (1, row.cores, gpus, row.memory_bytes))
    return Allowance(rooms_of)


def check_submit(tx: sqlite3.Connection, owner: str, asked: Sequence[Demand]) -> None:
    """Raise TooMany when too many tasks of his group wait, NotAllowed when one of these could never run.

    A gang is one demand: its sum.
    """
    count = sum(demand.tasks for demand in asked)
    for group in groups.of_owner(tx, owner):
        for demand in asked:
            kind = never_fits(_limits(group), _amounts(demand))
            if kind:
                raise NotAllowed(f"it could never run: group {group.name} may have {kind}")
        if group.max_queued is not None:
            waiting = groups.waiting(tx, group.name)
            if waiting + count > group.max_queued:
                raise TooMany(
                    f"group {group.name} may have {group.max_queued} tasks waiting (max_queued), and has {waiting}"
                )


def check_vps(tx: sqlite3.Connection, owner: str) -> None:
    """Raise TooMany when a group of his has as many VPS that are not stopped as it may have."""
    for group in groups.of_owner(tx, owner):
        if group.max_vps is None:
            continue
        count = vps.count_not_stopped(tx, groups.get(tx, group.name).members)
        if count >= group.max_vps:
            raise TooMany(
                f"group {group.name} may have {group.max_vps} VPS that are not stopped (max_vps), and has {count}"
            )


def never_fits(limits: Sequence[int | None], wanted: Amounts) -> str:
    """Which limit is too small even when nothing is in use; empty text when none is."""
    for kind, limit in enumerate(limits):
        if limit is not None and wanted[kind] > limit:
            return f"{_told(kind, limit)} {WORDS[kind]} (max_{KINDS[kind]}), and {_told(kind, wanted[kind])} are asked"
    return ""


def _limits(quota: Quota) -> tuple[int | None, ...]:
    return tuple(getattr(quota, f"max_{kind}") for kind in KINDS)


def _amounts(demand: Demand) -> Amounts:
    return (demand.tasks, demand.cores, demand.gpus, demand.memory_bytes)


def _told(kind: int, amount: int) -> str:
    return show_bytes(amount) if KINDS[kind] == "memory_bytes" else str(amount)
