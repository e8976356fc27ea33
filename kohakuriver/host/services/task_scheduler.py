"""Speaks with runners about tasks: sends what the rows want done there, and takes what comes back into the rows."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kohakuriver.host.services import reconcile, workspace
from kohakuriver.host.services.claims import Claims
from kohakuriver.host.services.node_registry import LiveNode, NodeRegistry
from kohakuriver.host.services.tarballs import Tarballs
from kohakuriver.host.store import changes, gangs, overlay, task_secrets, tasks
from kohakuriver.host.store.tasks import Live
from kohakuriver.model import runner_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Unavailable
from kohakuriver.model.events import Kind, Step
from kohakuriver.model.image import Tarball
from kohakuriver.model.lifecycle import ADOPTABLE, FINAL, Desired, Event, Status
from kohakuriver.model.node import NodeStatus
from kohakuriver.model.report import Acknowledged, AttemptRef, Report, State, WorkloadState
from kohakuriver.model.runner_vps_api import CREATE_VPS, DELETE_VPS, RESTART_VPS, STOP_VPS, TELL_INSIDE, TellInside
from kohakuriver.model.task import Task, TaskSpec, spec_values
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import Vps
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database, Work
from kohakuriver.wire.call import DEFAULT_TIMEOUT_SECONDS, NotDelivered, Peer
from kohakuriver.wire.peers import RunnerPeers
from kohakuriver.wire.sign import WINDOW_SECONDS

UNKNOWN_GRACE_SECONDS = 60.0
# A report may be so old when it is taken: signed within the window, or made once and signed twice by a caller that waits.
ABSENCE_GRACE_SECONDS = WINDOW_SECONDS + 2 * DEFAULT_TIMEOUT_SECONDS
DELETE_SECONDS, TELL_SECONDS = 120.0, 5.0
SHUN_FIRST_SECONDS, SHUN_CAP_SECONDS = 2.0, 60.0


@dataclass(slots=True)
class Shunned:
    """Nodes that turned a task away lately: until when (monotonic), how often, and what they said."""

    until: dict[str, float] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


Attempt = tuple[Snowflake, int]
Avoided = Mapping[Snowflake, Mapping[str, str]]


@dataclass(slots=True)
class Outbox:
    """What is under way to runners; all of it can be lost at any instant and is then worked out anew.

    `unsent` attempts have certainly not reached a runner, `sent` ones certainly have, `tried` says when (monotonic) one
    may have last, `again` before when an order is not to be sent once more and how often it was. What the host's lives
    before this one tried, they may have tried until `since`.
    """

    since: float
    under_way: set[Snowflake] = field(default_factory=set)
    unsent: set[Attempt] = field(default_factory=set)
    sent: set[Attempt] = field(default_factory=set)
    tried: dict[Attempt, float] = field(default_factory=dict)
    again: dict[tuple[Snowflake, int, Desired], tuple[float, int]] = field(default_factory=dict)
    unknown_since: dict[Attempt, float] = field(default_factory=dict)
    shunned: dict[Snowflake, Shunned] = field(default_factory=dict)

    def forget(self, task_id: Snowflake, attempt: int) -> None:
        """The attempt is over."""
        self.tried.pop((task_id, attempt), None)
        self.unknown_since.pop((task_id, attempt), None)
        self.forget_orders(task_id, attempt)

    def forget_orders(self, task_id: Snowflake, attempt: int) -> None:
        """Whatever was said about the attempt is to be said anew, should it come back."""
        self.sent.discard((task_id, attempt))
        self.unsent.discard((task_id, attempt))
        for order in Desired:
            self.again.pop((task_id, attempt, order), None)

    def keep_only(self, rows: Sequence[Live]) -> None:
        """Forget orders about all but these rows, which are all that a runner may have to be told something about."""
        attempts = {(row.task_id, row.attempt) for row in rows}
        self.sent &= attempts
        self.unsent &= attempts
        for key in [key for key in self.again if key[:2] not in attempts]:
            del self.again[key]

    def shun(self, task_id: Snowflake, hostname: str, said: str, now: float) -> None:
        """Keep a task away from a node that turned it away, longer each time."""
        shunned = self.shunned.setdefault(task_id, Shunned())
        times = shunned.times.get(hostname, 0)
        shunned.times[hostname] = times + 1
        shunned.until[hostname] = now + min(SHUN_CAP_SECONDS, SHUN_FIRST_SECONDS * 2**times)
        shunned.said[hostname] = f"turned it away: {said}"

    def prune(self, now: float) -> None:
        """Forget refusals that no longer keep anybody away, and tries that are too old to matter."""
        for key in [key for key, tried in self.tried.items() if now - tried > ABSENCE_GRACE_SECONDS]:
            del self.tried[key]
        for task_id, shunned in list(self.shunned.items()):
            if max(shunned.until.values()) + SHUN_CAP_SECONDS < now:
                del self.shunned[task_id]

    def avoided_by_task(self, now: float) -> Avoided:
        """For each task that was turned away lately what `avoided` says."""
        return {task_id: self.avoided(task_id, now) for task_id in self.shunned}

    def avoided(self, task_id: Snowflake, now: float) -> dict[str, str]:
        """The nodes that a task keeps away from just now, and what they said."""
        shunned = self.shunned.get(task_id)
        return {n: shunned.said[n] for n, until in shunned.until.items() if until > now} if shunned else {}


@dataclass(frozen=True, slots=True)
class TaskScheduler:
    """The one dispatch uses these; nothing else speaks with runners about a task's life."""

    db: Database
    registry: NodeRegistry
    peers: RunnerPeers
    clock: Clock
    outbox: Outbox
    heartbeat_interval_seconds: float
    kill_grace_seconds: float
    tarballs: Tarballs
    claims: Claims

    async def send_task_to_runner(self, row: Live) -> None:
        """Hand an attempt over; raises what the runner refused with, NotDelivered, or NodeUnreachable."""
        task, facts = await self.db.read(lambda tx: _order_of(tx, row.task_id))
        if (task.attempt, task.status) != (row.attempt, Status.ASSIGNING):
            return
        vps = workspace.order_of(task) if isinstance(task, Vps) else None
        request = runner_api.Execute(
            task_id=task.task_id,
            attempt=task.attempt,
            owner=task.owner,
            spec=TaskSpec(**spec_values(task)),
            gpus=task.assigned_gpus,
            numa_node=task.assigned_numa,
            tarball=await self._newest_tarball(task.container_name) if vps is None or vps.is_new else None,
            vps=vps,
            reserved_ip=task.assigned_ip,
            rank=task.rank,
            proof=self.claims.proof(task.task_id, task.attempt, row.node),
            **facts,
        )
        route = runner_api.EXECUTE if vps is None else CREATE_VPS if vps.is_new else RESTART_VPS
        key = (row.task_id, row.attempt)
        never_tried = key in self.outbox.unsent
        self.outbox.unsent.discard(key)
        try:
            await self._peer(row).call(route, request)
        except NotDelivered:
            if never_tried:
                self.outbox.unsent.add(key)
            raise
        except Unavailable:
            self.outbox.tried[key] = self.clock.monotonic()
            raise
        self.outbox.sent.add(key)
        self.outbox.tried[key] = self.clock.monotonic()

    async def send_kill_to_runner(self, row: Live) -> None:
        """Ask for the end of an attempt; the report tells when it is true."""
        request = runner_api.Kill(task_id=row.task_id, attempt=row.attempt, grace_seconds=self.kill_grace_seconds)
        await self._peer(row).call(runner_api.KILL, request)

    async def send_stop_to_runner(self, row: Live) -> None:
        """Ask for the end of a VPS, of which everything is kept; the report tells when it is true."""
        vps = await self.db.read(lambda tx: tasks.get(tx, row.task_id))
        request = runner_api.Kill(
            task_id=row.task_id,
            attempt=row.attempt,
            grace_seconds=self.kill_grace_seconds,
            spare=vps.restore if isinstance(vps, Vps) else None,
        )
        await self._peer(row).call(STOP_VPS, request)

    async def tell_inside(self, vps: Vps, text: str) -> None:
        """Write a line into the open terminals of a VPS; raises RiverError."""
        asked = TellInside(task_id=vps.task_id, attempt=vps.attempt, text=text)
        await self.peer_at(vps.assigned_node or "").call(TELL_INSIDE, asked, TELL_SECONDS)

    async def delete_on_runner(self, row: Live) -> None:
        """Have the node of a stopped VPS take everything of it away; only then is it gone."""
        await self._peer(row).call(DELETE_VPS, runner_api.TaskRef(task_id=row.task_id), timeout_seconds=DELETE_SECONDS)
        now = self.clock.now()

        def end(tx: sqlite3.Connection) -> None:
            task = tasks.get(tx, row.task_id)
            if (task.status, task.desired) == (Status.STOPPED, Desired.KILL):
                tasks.move(tx, task, tasks.Change(Event.KILLED, {"completed_at": rfc3339(now)}), now)

        await self.db.write(end)

    async def send_pause_to_runner(self, row: Live) -> None:
        """Ask for a freeze."""
        await self._peer(row).call(
            runner_api.PAUSE, runner_api.Attempt(task_id=row.task_id, attempt=row.attempt), timeout_seconds=30
        )

    async def send_resume_to_runner(self, row: Live) -> None:
        """Ask for a thaw."""
        await self._peer(row).call(
            runner_api.RESUME, runner_api.Attempt(task_id=row.task_id, attempt=row.attempt), timeout_seconds=30
        )

    async def update_task_status(self, node: LiveNode, report: Report) -> Acknowledged:
        """Take a runner's report into the rows; the answer says what it may forget and what it must remove.

        To be called with a node's reports in their order, one at a time.
        """
        hostname = node.row.hostname
        rows, elsewhere = await self.db.read(lambda tx: _standing(tx, hostname, report.workloads))
        proven: Callable[[WorkloadState], bool] = lambda state: self.claims.is_good(state, hostname)
        verdict = reconcile.reconcile(rows, report, elsewhere, self.may_be_under_way, proven)
        node.output_bytes = {s.task_id: (s.stdout_bytes, s.stderr_bytes) for s in report.workloads}
        preparing: dict[int, str] = {
            s.task_id: s.message for s in report.workloads if s.state is State.PREPARING and s.message
        }
        further, node.preparing = preparing.items() - node.preparing.items(), preparing
        node.busy = {s.task_id: s.busy for s in report.workloads if s.busy is not None}
        node.orphans = tuple(verdict.unknown)
        ended, fenced = list(verdict.ended), list(verdict.fenced)
        over = [state for state in verdict.unknown if _leaves_nothing(state) and self._unknown_too_long(state)]
        fenced += [AttemptRef(state.task_id, state.attempt) for state in over]
        if verdict.news or verdict.later or verdict.gone or verdict.never_came:
            ended += await self.db.write(self._judge_all(verdict, hostname))
        if further:
            now = self.clock.now()
            await self.db.write(lambda tx: changes.tell_progress(tx, hostname, further, now))
        for state in verdict.news:
            self.outbox.forget_orders(state.task_id, state.attempt)
            if state.refused and state.retry_elsewhere:
                said = state.message or "no reason given"
                self.outbox.shun(state.task_id, hostname, said, self.clock.monotonic())
        absent = [AttemptRef(row.task_id, row.attempt) for row in (*verdict.gone, *verdict.never_came)]
        for ref in (*ended, *absent):
            self.outbox.forget(ref.task_id, ref.attempt)
        doubted = [AttemptRef(state.task_id, state.attempt) for state in verdict.unknown if state.claim is None]
        return Acknowledged(ended=ended, fenced=fenced, doubted=doubted)

    async def tell_whether_there(self, node: LiveNode) -> None:
        """Write down that a node is there, or is no more, unless that is what was written last."""
        state = NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE
        if node.told is not state:
            step = Step(at=rfc3339(self.clock.now()), state=state)
            await self.db.write(lambda tx: changes.tell(tx, Kind.NODE, node.row.hostname, step))
            node.told = state

    async def give_up_on(self, hostname: str, why: str) -> int:
        """A node went silent: its tasks are lost, or wait again; how many there were."""
        now = self.clock.now()

        def give_up(tx: sqlite3.Connection) -> list[Live]:
            rows = [row for row in tasks.live(tx, hostname) if row.holds]
            for row in rows:
                task = tasks.get(tx, row.task_id)
                if row.status is Status.ASSIGNING and (row.task_id, row.attempt) in self.outbox.unsent:
                    change: tasks.Change | None = reconcile.judge_refusal(task, why, retry_elsewhere=True, now=now)
                else:
                    change = reconcile.judge_gone(task, now, why)
                if change:
                    tasks.move(tx, task, change, now)
            return rows

        given_up = await self.db.write(give_up)
        for row in given_up:
            self.outbox.forget_orders(row.task_id, row.attempt)
        return len(given_up)

    async def refused(self, row: Live, why: str, retry_elsewhere: bool) -> None:
        """A runner would not take an attempt."""
        now = self.clock.now()
        if retry_elsewhere:
            self.outbox.shun(row.task_id, row.node, why, self.clock.monotonic())

        def turn_away(tx: sqlite3.Connection) -> None:
            task = tasks.get(tx, row.task_id)
            if (task.attempt, task.status) == (row.attempt, Status.ASSIGNING):
                tasks.move(tx, task, reconcile.judge_refusal(task, why, retry_elsewhere, now), now)

        await self.db.write(turn_away)
        self.outbox.forget(row.task_id, row.attempt)

    async def confirm_absence(self, row: Live) -> None:
        """The runner has never heard of an attempt that is to end."""
        now = self.clock.now()

        def end(tx: sqlite3.Connection) -> None:
            task = tasks.get(tx, row.task_id)
            if (
                task.attempt == row.attempt
                and task.status not in FINAL
                and task.desired in (Desired.KILL, Desired.STOP)
            ):
                tasks.move(tx, task, reconcile.judge_absent(task, now, "the runner did not have it"), now)

        await self.db.write(end)
        self.outbox.forget(row.task_id, row.attempt)

    async def _newest_tarball(self, environment: str | None) -> Tarball | None:
        return await asyncio.to_thread(self.tarballs.newest, environment) if environment else None

    def peer_at(self, hostname: str) -> Peer:
        """The runner of a node; raises NotFound for one that is not registered."""
        node = self.registry.get(hostname).row
        return self.peers.at(hostname, node.url, node.tls_fingerprint)

    def _peer(self, row: Live) -> Peer:
        return self.peer_at(row.node)

    def may_be_under_way(self, row: Live) -> bool:
        """Whether the absence of a row from a report proves nothing: the report may be older than the order to run it."""
        key = (row.task_id, row.attempt)
        tried = self.outbox.tried.get(key, self.outbox.since)
        if row.task_id in self.outbox.under_way or self.clock.monotonic() - tried < ABSENCE_GRACE_SECONDS:
            return True
        return row.status is Status.ASSIGNING and key not in self.outbox.sent

    def _unknown_too_long(self, state: WorkloadState) -> bool:
        now = self.clock.monotonic()
        return now - self.outbox.unknown_since.setdefault((state.task_id, state.attempt), now) > UNKNOWN_GRACE_SECONDS

    def _judge_all(self, verdict: reconcile.Verdict, hostname: str) -> Work[list[AttemptRef]]:
        now = self.clock.now()

        def apply(tx: sqlite3.Connection) -> list[AttemptRef]:
            over = []
            for state in (*verdict.later, *verdict.news):
                task = tasks.get(tx, state.task_id)
                if state in verdict.later and task.attempt < state.attempt and task.status in ADOPTABLE:
                    task = tasks.move(tx, task, reconcile.adopted(task, state, hostname), now)
                if task.attempt == state.attempt:
                    task = _apply(tx, task, state, now)
                is_over = task.attempt != state.attempt or task.status in FINAL or task.status is Status.PENDING
                if is_over and state.state is State.ENDED:  # what still lives is fenced off by the next report
                    over.append(AttemptRef(state.task_id, state.attempt))
            for row in (*verdict.gone, *verdict.never_came):
                task = tasks.get(tx, row.task_id)
                if task.attempt != row.attempt or task.status in FINAL or task.status is Status.PENDING:
                    continue
                gone = row in verdict.gone
                change = (
                    reconcile.judge_gone(task, now, reconcile.GONE) if gone else reconcile.judge_never_came(task, now)
                )
                if change:
                    tasks.move(tx, task, change, now)
            return over

        return apply


def _order_of(tx: sqlite3.Connection, task_id: Snowflake) -> tuple[Task, dict[str, Any]]:
    """A task, and what an order says of it that stands in other rows."""
    task = tasks.get(tx, task_id)
    return task, {
        "secret_env": task_secrets.of_task(tx, task_id),
        "registry_login": task_secrets.login_of(tx, task_id),
        "ranks": gangs.ranks(tx, task_id),
        "owner_tag": overlay.tag_of(tx, task.owner),
    }


def _leaves_nothing(state: WorkloadState) -> bool:
    """Whether there is nothing to lose but how it ended: of a VPS its files are there."""
    return state.state is State.ENDED and state.claim is not None and not state.claim.is_vps


def _apply(tx: sqlite3.Connection, task: Task, state: WorkloadState, now: float) -> Task:
    for change in reconcile.judge(task, state, now):
        task = tasks.move(tx, task, change, now)
    return task


def _standing(
    tx: sqlite3.Connection, hostname: str, states: Sequence[WorkloadState]
) -> tuple[list[Live], dict[int, reconcile.Elsewhere]]:
    rows = tasks.live(tx, hostname)
    here = {row.task_id: row.attempt for row in rows}
    strays = [s.task_id for s in states if here.get(s.task_id) != s.attempt]
    return rows, {task_id: reconcile.Elsewhere(*found) for task_id, found in tasks.attempts(tx, strays).items()}
