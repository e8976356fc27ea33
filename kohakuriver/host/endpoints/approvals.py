"""Tasks that wait for an operator's yes: what is shown to him is what will run."""

import sqlite3
from collections.abc import Sequence

from kohakuriver.host.endpoints.tasks import page
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, tasks, users
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.tasks import Change
from kohakuriver.model import host_api
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, Conflict
from kohakuriver.model.host_api import ApproveTasks, RejectTask, RejectTasks, TaskId
from kohakuriver.model.lifecycle import Event, Status
from kohakuriver.model.listing import ListMine
from kohakuriver.model.task import Task
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.serve import Encoded, on


async def list_waiting(host: Host, caller: Caller, asked: ListMine) -> Encoded[list[Task]]:
    if asked.status not in (None, Status.PENDING_APPROVAL):
        return Encoded("[]")  # none of those waits
    return await page(host, {"status": Status.PENDING_APPROVAL}, asked)


async def approve(host: Host, caller: Caller, asked: TaskId) -> Task:
    return (await _approve(host, caller, [asked.task_id]))[0]


async def approve_many(host: Host, caller: Caller, asked: ApproveTasks) -> list[Task]:
    return await _approve(host, caller, asked.task_ids)


async def reject(host: Host, caller: Caller, asked: RejectTask) -> Task:
    return (await _reject(host, caller, [asked.task_id], asked.reason))[0]


async def reject_many(host: Host, caller: Caller, asked: RejectTasks) -> list[Task]:
    return await _reject(host, caller, asked.task_ids, asked.reason)


async def _approve(host: Host, caller: Caller, task_ids: Sequence[Snowflake]) -> list[Task]:
    change = Change(Event.APPROVED, {"approval_status": "approved"})
    return await _decide(host, caller, task_ids, change)


async def _reject(host: Host, caller: Caller, task_ids: Sequence[Snowflake], reason: str) -> list[Task]:
    values = {"approval_status": "rejected", "rejection_reason": reason or None}
    return await _decide(host, caller, task_ids, Change(Event.REJECTED, values, reason or None))


async def _decide(host: Host, caller: Caller, task_ids: Sequence[Snowflake], change: Change) -> list[Task]:
    """All of them in one transaction, or none."""
    if not task_ids or len(set(task_ids)) < len(task_ids):
        raise BadRequest("task_ids: name each task once, and at least one")
    now = host.clock.now()
    values = {**change.values, "approved_by": caller.name, "approved_at": rfc3339(now)}
    whole = Change(change.event, values, change.detail, caller.name)

    def decide(tx: sqlite3.Connection) -> list[Task]:
        decided = []
        for task_id in task_ids:
            task = tasks.get(tx, task_id)
            if task.status is not Status.PENDING_APPROVAL:
                raise Conflict(f"task {task_id} is {task.status}; only one that waits for approval can be decided on")
            if change.event is Event.APPROVED and users.is_locked_out(tx, task.owner):
                raise Conflict(f"task {task_id} cannot be approved: the account of {task.owner} is disabled or deleted")
            decided.append(tasks.move(tx, task, whole, now))
            audit.record(tx, caller, Deed(f"task.{_verb(change)}", f"task:{task_id}", change.detail or ""), now)
        return decided

    made = await host.db.write(decide)
    host.dispatch.wake.set()
    return made


def _verb(change: Change) -> str:
    return "approve" if change.event is Event.APPROVED else "reject"


ANSWERS = [
    on(host_api.TASK_WAITING, list_waiting),
    on(host_api.TASK_APPROVE, approve),
    on(host_api.TASK_REJECT, reject),
    on(host_api.TASK_APPROVE_MANY, approve_many),
    on(host_api.TASK_REJECT_MANY, reject_many),
]
