"""Submit, look at, and steer tasks."""

import hashlib
import hmac
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from kohakuriver.host.endpoints.overlay import refuse_without_overlay
from kohakuriver.host.services.node_manager import Demand, demand_of, sum_of
from kohakuriver.host.services.quotas import check_submit
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, gangs, nodes, task_secrets, tasks
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.tasks import Change, Shown
from kohakuriver.model import codec, host_api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed
from kohakuriver.model.host_api import Submitted, TaskId
from kohakuriver.model.lifecycle import ON_NODE, Desired, Event, Status
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.policy import Asker, Policy, refusal
from kohakuriver.model.task import HistoryEntry, Submission, SubmitTask, Task, WorkloadSpec, spec_values
from kohakuriver.model.units import parse_target, rfc3339
from kohakuriver.model.vps import VPS_TYPE
from kohakuriver.system.sqlite import Work
from kohakuriver.wire.serve import Encoded, on

T = TypeVar("T")


async def submit(host: Host, caller: Caller, asked: SubmitTask) -> Submitted:
    check_policy(host, caller, asked)
    if asked.nodes:
        refuse_without_overlay(host)
    if asked.ip_reservation_token and len(asked.targets) > 1:
        raise BadRequest("ip_reservation_token: one address is for one task, and there are several targets")
    batch_id, made = _make_tasks(host, caller, asked)
    now, digest = host.clock.now(), digest_of(host, asked)

    def insert(tx: sqlite3.Connection) -> Submitted:
        if earlier := made_before(tx, caller, asked, digest, batch_id):
            return Submitted(task_ids=earlier, batch_id=earlier[0])
        check_targets(tx, asked.targets)
        demands = [demand(task) for task in made]
        check_submit(tx, caller.name, [sum_of(demands)] if asked.nodes else demands)
        for task in made:
            tasks.insert(tx, task, caller.name)
        if len(made) > 1 and asked.nodes:
            gangs.insert(tx, [task.task_id for task in made], not asked.keep_going)
        if asked.ip_reservation_token:
            host.reservations.claim(tx, caller.name, asked.ip_reservation_token, made[0].task_id)
        for task in made:
            task_secrets.keep(tx, task.task_id, asked)
            audit.record(tx, caller, Deed("task.submit", f"task:{task.task_id}", f"as {task.status}"), now)
        return Submitted(task_ids=[task.task_id for task in made], batch_id=batch_id)

    submitted = await host.db.write(insert)
    host.dispatch.wake.set()
    return submitted


def digest_of(host: Host, asked: Submission) -> str:
    """By what the same request is known again; under a key of the host, as there may be a password in it."""
    key = hmac.digest(host.keys.master, b"kohakuriver submits", hashlib.sha256)
    return hmac.new(key, codec.encode_text(asked).encode(), hashlib.sha256).hexdigest()


def made_before(
    tx: sqlite3.Connection, caller: Caller, asked: Submission, digest: str, batch_id: Snowflake
) -> list[Snowflake]:
    """What a submit with this key made before; if none did, this one is remembered by it. Raises Conflict."""
    if asked.idempotency_key is None:
        return []
    earlier = tasks.find_submit(tx, caller.name, asked.idempotency_key, digest)
    if not earlier:
        tasks.remember_submit(tx, (caller.name, asked.idempotency_key), digest, batch_id)
    return earlier or []


def check_policy(host: Host, caller: Caller, asked: WorkloadSpec) -> None:
    """Raise NotAllowed for what he may not ask for.

    Without accounts there is nobody to tell apart, and the nodes' own settings decide; but for `privileged`.
    """
    policy = host.auth.policy if host.auth.enabled else Policy(privileged_for_all=host.settings.tasks_privileged)
    spec = asked if host.auth.enabled else replace(asked, additional_mounts=[])
    user = host.auth.accounts.users.get(caller.user_id)
    why = refusal(spec, Asker(caller.role, user.groups if user else ()), policy)
    if why:
        raise NotAllowed(why)


def demand(task: Task) -> Demand:
    """What it needs of a node."""
    gpus = codec.dumps(task.required_gpus)
    return demand_of(task.required_cores, task.required_memory_bytes or 0, gpus, task.target)


def _make_tasks(host: Host, caller: Caller, asked: SubmitTask) -> tuple[Snowflake, list[Task]]:
    targets: list[str | None] = list(asked.targets) or [None] * (asked.nodes or 1)
    targets[0] = place_of(host, asked.ip_reservation_token, targets[0])
    ids = [host.ids.next() for _ in targets]
    waits = caller.role < Role.OPERATOR
    made = [
        Task(
            task_id=task_id,
            batch_id=ids[0],
            owner=caller.name,
            target=target,
            status=Status.PENDING_APPROVAL if waits else Status.PENDING,
            approval_status="pending" if waits else None,
            submitted_at=rfc3339(host.clock.now()),
            secret_names=sorted(asked.secret_env),
            rank=rank if asked.nodes else 0,
            world_size=asked.nodes or 1,
            **spec_values(asked),
        )
        for rank, (task_id, target) in enumerate(zip(ids, targets, strict=True))
    ]
    return ids[0], made


def place_of(host: Host, token: str | None, target: str | None) -> str | None:
    """The target asked for, or the node of a reserved address; raises BadRequest when they contradict each other."""
    if token is None:
        return target
    refuse_without_overlay(host)
    runner = host.reservations.check_target(token, parse_target(target).hostname if target else None)
    return target or runner


def check_targets(tx: sqlite3.Connection, targets: Sequence[str]) -> None:
    """Raise BadRequest for a node that is not registered."""
    for number, target in enumerate(targets):
        hostname = parse_target(target).hostname
        if nodes.find(tx, hostname) is None:
            raise BadRequest(f"targets[{number}]: no node {hostname!r} is registered")


async def list_tasks(host: Host, caller: Caller, asked: ListAll) -> Encoded[list[Task]]:
    owner = asked.owner if caller.sees_all else caller.name
    if asked.owner not in (None, owner):
        return Encoded("[]")
    return await page(host, {"status": asked.status, "node": asked.node, "owner": owner}, asked)


async def list_my_tasks(host: Host, caller: Caller, asked: ListMine) -> Encoded[list[Task]]:
    return await page(host, {"status": asked.status, "owner": caller.name}, asked)


async def page(host: Host, wanted: Mapping[str, Any], asked: ListMine) -> Encoded[list[Task]]:
    """One page of tasks; VPS have lists of their own."""
    commands = {**wanted, "task_type": "command"}
    rows = await host.db.read(lambda tx: tasks.page(tx, commands, asked.before, asked.limit))
    return Encoded(f"[{','.join([_text(host, row) for row in rows])}]")


def _text(host: Host, row: Shown) -> str:
    """The task as JSON, with why it waits and how much it has written by now."""
    if row.status in ON_NODE and row.node in host.registry.nodes:
        row = row.with_output(host.registry.nodes[row.node].output_bytes.get(row.task_id))
    return row.text(host.dispatch.explain(row))


async def show(host: Host, caller: Caller, asked: TaskId) -> Encoded[Task]:
    return Encoded(_text(host, await host.db.look_up(tasks.show, asked.task_id)))


async def history(host: Host, caller: Caller, asked: TaskId) -> Encoded[list[HistoryEntry]]:
    return Encoded(f"[{','.join(await host.db.read(lambda tx: tasks.history(tx, asked.task_id)))}]")


async def kill(host: Host, caller: Caller, asked: TaskId) -> Task:
    """At once where no runner can have it; else the intent is written down and the dispatch carries it out."""

    def intend(tx: sqlite3.Connection) -> Task:
        task, now = tasks.get(tx, asked.task_id), host.clock.now()
        if task.task_type == VPS_TYPE:
            raise Conflict(f"task {task.task_id} is a VPS: stop it (kohakuriver vps stop) or delete it (vps delete)")
        if task.status in (Status.PENDING, Status.PENDING_APPROVAL) or is_orphan(host, task):
            values = {"desired": Desired.KILL, "completed_at": rfc3339(now)}
            audit.record(tx, caller, Deed("task.kill", f"task:{task.task_id}"), now)
            return tasks.move(tx, task, Change(Event.KILLED, values, by=caller.name), now)
        if task.status not in ON_NODE and task.status is not Status.LOST:
            raise Conflict(f"task {task.task_id} is {task.status} already")
        audit.record(tx, caller, Deed("task.kill", f"task:{task.task_id}"), now)
        return tasks.intend(tx, task, Desired.KILL, caller.name, now)

    return await steer(host, intend)


def is_orphan(host: Host, task: Task) -> bool:
    """Whether it is lost on a node that is no more."""
    return task.status is Status.LOST and task.assigned_node not in host.registry.nodes


async def pause(host: Host, caller: Caller, asked: TaskId) -> Task:
    return await want(host, caller, asked.task_id, Desired.PAUSE)


async def resume(host: Host, caller: Caller, asked: TaskId) -> Task:
    return await want(host, caller, asked.task_id, Desired.RUN)


async def want(host: Host, caller: Caller, task_id: Snowflake, desired: Desired, noun: str = "task") -> Task:
    """Write down that a task (or VPS, `noun` says) that runs is to be frozen or to go on; raises Conflict."""

    def intend(tx: sqlite3.Connection) -> Task:
        task = tasks.get(tx, task_id)
        if task.status not in (Status.RUNNING, Status.PAUSED):
            verb = "paused" if desired is Desired.PAUSE else "resumed"
            raise Conflict(f"{noun} {task_id} is {task.status}; only a running or paused one can be {verb}")
        if task.desired in (Desired.KILL, Desired.STOP):
            raise Conflict(f"{noun} {task_id} is being {'killed' if task.desired is Desired.KILL else 'stopped'}")
        deed = Deed(f"{noun}.{'pause' if desired is Desired.PAUSE else 'resume'}", f"task:{task_id}")
        audit.record(tx, caller, deed, host.clock.now())
        return tasks.intend(tx, task, desired, caller.name, host.clock.now())

    return await steer(host, intend)


async def steer(host: Host, work: Work[T]) -> T:
    """Write something down, and have the dispatch act on it."""
    written = await host.db.write(work)
    host.dispatch.wake.set()
    return written


ANSWERS = [
    on(host_api.TASK_SUBMIT, submit),
    on(host_api.TASK_LIST, list_tasks),
    on(host_api.TASK_MY, list_my_tasks),
    on(host_api.TASK_SHOW, show),
    on(host_api.TASK_HISTORY, history),
    on(host_api.TASK_KILL, kill),
    on(host_api.TASK_PAUSE, pause),
    on(host_api.TASK_RESUME, resume),
]
