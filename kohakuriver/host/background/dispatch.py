"""The one dispatch: places what waits, and sends runners what rows want and reports do not yet confirm."""

import itertools
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kohakuriver.host.services.gangs import Gangs, waiting
from kohakuriver.host.services.ip_reservation import IPReservationManager
from kohakuriver.host.services.node_manager import (
    NodeResources,
    Placement,
    demand_of,
    explain,
    place,
    within_reach,
)
from kohakuriver.host.services.node_registry import LiveNode, NodeRegistry, resources_of
from kohakuriver.host.services.quotas import allowance_of
from kohakuriver.host.services.task_scheduler import Avoided, TaskScheduler
from kohakuriver.host.store import gangs as gang_rows
from kohakuriver.host.store import overlay as overlay_rows
from kohakuriver.host.store import tasks
from kohakuriver.host.store.tasks import Change, Live, Shown
from kohakuriver.model import errors
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Desired, Event, Status
from kohakuriver.model.task import Task
from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Loops, Wake
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
QUEUE_LIMIT = 10_000  # how many one pass looks at of those that some node could run
QUEUE_DEPTH = 10 * QUEUE_LIMIT  # how far down the queue it looks for them
PASS_LIMIT = 128  # placements in one transaction; the next pass follows at once
ORDERS_LIMIT = 256  # orders under way at once
LONG_PASS_SECONDS = 0.005  # a longer pass, under a long queue, is followed by a rest: others write too
REST_AFTER_WORK, REST_AFTER_NOTHING, MOST_REST_SECONDS = 1.0, 5.0, 0.25
ORDER_AGAIN_SECONDS = 15.0
NO_OVERLAY = "its overlay cannot be used"


@dataclass(slots=True)
class Dispatch:
    """State of the loop; all of it can be lost at any instant."""

    db: Database
    registry: NodeRegistry
    scheduler: TaskScheduler
    loops: Loops
    clock: Clock
    wake: Wake
    addresses: IPReservationManager
    seen: dict[str, NodeResources] = field(default_factory=dict)
    waits: dict[Snowflake, str] = field(default_factory=dict)  # which quota keeps a task from being placed

    async def step(self) -> None:
        """One pass: place, then send."""
        began = self.clock.monotonic()
        nodes, avoid = list(self.registry.nodes.values()), self.scheduler.outbox.avoided_by_task(began)
        placed = await self.db.write(lambda tx: self._place(tx, nodes, avoid))
        took = self.clock.monotonic() - began
        if placed >= PASS_LIMIT:
            self.wake.set()
        await self._send()
        if took > LONG_PASS_SECONDS:
            await self.clock.sleep(min(MOST_REST_SECONDS, took * (REST_AFTER_WORK if placed else REST_AFTER_NOTHING)))

    def explain(self, task: Shown) -> str | None:
        """Why a task waits, as the last pass saw it or its node says it; None when it does not wait."""
        if task.status is Status.ASSIGNING and task.node in self.registry.nodes:
            return self.registry.nodes[task.node].preparing.get(task.task_id)
        if task.status is not Status.PENDING:
            return None
        if task.task_id in self.waits:
            return self.waits[task.task_id]
        demand = demand_of(task.cores, task.memory_bytes, task.gpus, task.target)
        return explain(
            demand,
            self.seen or self.registry.resources(()),
            self.scheduler.outbox.avoided(task.task_id, self.clock.monotonic()),
        )

    def _place(self, tx: sqlite3.Connection, known: Sequence[LiveNode], avoid: Avoided) -> int:
        """Works on the store's thread, so what the event loop changes is handed in; gives how many were placed."""
        queue = tasks.queued(tx, QUEUE_DEPTH)
        first = next(queue, None)
        if first is None:
            self.waits = {}
            return 0
        nodes, now = resources_of(known, self._live(tx)), self.clock.now()
        held = {node.claim.claimant: node.hostname for node in self.seen.values() if node.claim}
        allowance = allowance_of(tx)
        possible = within_reach(itertools.chain([first], queue), nodes, QUEUE_LIMIT)
        gangs = waiting(gang_rows.every(tx))
        avoid = self._keep_to_overlay(tx, avoid, gangs)
        made = place(possible, nodes, avoid, held, PASS_LIMIT, quotas=allowance, gangs=gangs)
        stores = {node.row.hostname: node.store or None for node in known}
        for placement in made:
            task = tasks.get(tx, placement.task_id)
            values = self._placed(tx, task, placement) | {"assigned_store": stores[placement.hostname]}
            tasks.move(tx, task, Change(Event.PLACED, values), now)
            self.scheduler.outbox.unsent.add((task.task_id, task.attempt + 1))
        self.seen, self.waits = nodes, gangs.waits | allowance.waits
        return len(made)

    def _keep_to_overlay(self, tx: sqlite3.Connection, avoid: Avoided, gangs: Gangs) -> Avoided:
        """The same, with nodes without an overlay avoided by tasks that need an address in it."""
        overlay = self.addresses.overlay
        needing = {*gangs.of, *overlay_rows.reserved_tasks(tx)} if overlay.enabled else set()
        without = {name: NO_OVERLAY for name in self.registry.nodes if not overlay.is_ready(name)} if needing else {}
        return {**avoid, **{task_id: {**avoid.get(task_id, {}), **without} for task_id in needing}}

    def _placed(self, tx: sqlite3.Connection, task: Task, placement: Placement) -> dict[str, Any]:
        return {
            "attempt": task.attempt + 1,
            "tries": task.tries + 1,
            "assigned_node": placement.hostname,
            "assigned_gpus": list(placement.gpus),
            "assigned_numa": placement.numa_node,
            "assigned_ip": self.addresses.of_placement(tx, task, placement.hostname),
        }

    def _live(self, tx: sqlite3.Connection) -> list[Live]:
        """What holds resources, or may yet turn out to."""
        return [row for row in tasks.live(tx) if row.holds or self.scheduler.may_be_under_way(row)]

    async def _send(self) -> None:
        outbox, now = self.scheduler.outbox, self.clock.monotonic()
        room = ORDERS_LIMIT - len(outbox.under_way)
        rows = await self.db.read(tasks.to_be_ordered)
        outbox.keep_only(rows)
        for row in rows:
            if room <= 0:
                break
            order = self._order_due(row, now)
            if order:
                outbox.under_way.add(row.task_id)
                self.loops.spawn(f"order-{row.task_id}", self._carry_out(row, order))
                room -= 1

    def _order_due(self, row: Live, now: float) -> Desired | None:
        """The order that is to be sent just now; None when none is, or it is under way, or was sent lately."""
        outbox, node, order = self.scheduler.outbox, self.registry.nodes.get(row.node), _order(row)
        if order is None or node is None or not node.online or row.task_id in outbox.under_way:
            return None
        if order is Desired.RUN and row.status is Status.ASSIGNING and (row.task_id, row.attempt) in outbox.sent:
            return None
        due, _ = outbox.again.get((row.task_id, row.attempt, order), (0.0, 0))
        return order if due <= now else None

    async def _carry_out(self, row: Live, order: Desired) -> None:
        outbox, key = self.scheduler.outbox, (row.task_id, row.attempt, order)
        _, tries = outbox.again.get(key, (0.0, 0))
        outbox.again[key] = (self.clock.monotonic() + min(ORDER_AGAIN_SECONDS, 0.5 * 2**tries), tries + 1)
        try:
            await self._send_one(row, order)
        except errors.Unavailable as away:
            log.warning("order not answered order=%s task=%s node=%s error=%s", order, row.task_id, row.node, away)
        except errors.RiverError as refused:
            await self._refused(row, order, refused)
        finally:
            outbox.under_way.discard(row.task_id)
            self.wake.set()

    async def _send_one(self, row: Live, order: Desired) -> None:
        if order is Desired.KILL and row.status is Status.STOPPED:
            await self.scheduler.delete_on_runner(row)
        elif order is Desired.KILL:
            await self.scheduler.send_kill_to_runner(row)
        elif order is Desired.STOP:
            await self.scheduler.send_stop_to_runner(row)
        elif row.status is Status.ASSIGNING:
            await self.scheduler.send_task_to_runner(row)
        elif order is Desired.PAUSE:
            await self.scheduler.send_pause_to_runner(row)
        else:
            await self.scheduler.send_resume_to_runner(row)

    async def _refused(self, row: Live, order: Desired, refused: errors.RiverError) -> None:
        log.warning("order refused order=%s task=%s node=%s error=%s", order, row.task_id, row.node, refused)
        if isinstance(refused, errors.NotLoggedIn):
            return  # the runner does not know us (yet): nothing about the task
        if order in (Desired.KILL, Desired.STOP) and isinstance(refused, errors.NotFound):
            await self.scheduler.confirm_absence(row)
        elif order is Desired.RUN and row.status is Status.ASSIGNING:
            elsewhere = isinstance(refused, errors.Conflict | errors.TooMany)
            if isinstance(refused, errors.EngineFailed):
                elsewhere = refused.retry_elsewhere
            await self.scheduler.refused(row, str(refused), elsewhere)


def _order(row: Live) -> Desired | None:
    """What a runner must be told about a row; None when its status is what is wanted."""
    if row.status is Status.LOST:
        return None
    if row.desired is Desired.KILL:
        return Desired.KILL
    if row.status is Status.ASSIGNING:
        return Desired.RUN
    if row.desired is Desired.STOP:
        return Desired.STOP
    if row.desired is Desired.PAUSE and row.status is Status.RUNNING:
        return Desired.PAUSE
    if row.desired is Desired.RUN and row.status is Status.PAUSED:
        return Desired.RUN
    return None
