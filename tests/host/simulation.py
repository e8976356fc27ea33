"""A cluster without wires: the host's real parts on a real store, made-up runners, and a network that loses and shuffles."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kohakuriver.host.background.dispatch import Dispatch
from kohakuriver.host.background.health import HealthCheck
from kohakuriver.host.endpoints import nodes as node_answers
from kohakuriver.host.endpoints import tasks as task_answers
from kohakuriver.host.services.claims import Claims
from kohakuriver.host.services.ip_reservation import IPReservationManager
from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.services.tarballs import Tarballs
from kohakuriver.host.services.task_scheduler import Outbox, TaskScheduler
from kohakuriver.host.state import Host
from kohakuriver.host.store import nodes as node_rows
from kohakuriver.host.store import schema, tasks
from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, EngineFailed, NodeUnreachable, NotFound
from kohakuriver.model.host_api import TaskId
from kohakuriver.model.lifecycle import FINAL, ON_NODE, Status
from kohakuriver.model.node import Gpu, Machine
from kohakuriver.model.report import Acknowledged, Heartbeat, Register, Report, State, WorkloadState
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.task import RetryOn, Task
from kohakuriver.model.units import rfc3339
from kohakuriver.system.loops import Loops, Wake
from kohakuriver.system.sqlite import Database
from kohakuriver.wire.call import NotDelivered
from kohakuriver.wire.peers import RunnerPeers
from kohakuriver.wire.sign import WINDOW_SECONDS
from tests.manual_clock import ManualClock

CORES, GPUS = 4, 2
PERSON = Caller("local", Role.ADMIN)
Attempt = tuple[int, int]
NO_TARBALLS = Tarballs(Path("/nonexistent"))


@dataclass
class MadeUpRunner:
    """A runner as the host can know it: attempts that go on when told, and a truth that nobody else may change."""

    hostname: str
    clock: ManualClock
    life: int = 0
    sequence: int = 0
    registered: bool = False
    held: dict[Attempt, WorkloadState] = field(default_factory=dict)
    kill_asked: set[Attempt] = field(default_factory=set)
    fenced: set[Attempt] = field(default_factory=set)
    begun: list[Attempt] = field(default_factory=list)
    ends: dict[Attempt, WorkloadState] = field(default_factory=dict)
    line: str = "ok"

    def answer(self, request: Any) -> WorkloadState:
        """What it does when a call of the host arrives."""
        key = (request.task_id, request.attempt)
        if isinstance(request, runner_api.Execute):
            return self._execute(key)
        if key not in self.held:
            raise NotFound("no such attempt")
        if isinstance(request, runner_api.Kill):
            self.kill_asked.add(key)
        return self.held[key]

    def _execute(self, key: Attempt) -> WorkloadState:
        if key in self.held:
            return self.held[key]
        if any(task_id == key[0] and attempt > key[1] for task_id, attempt in self.held):
            raise Conflict("a later attempt is here")
        if self.line == "refuses here":
            raise EngineFailed("no such image here", retry_elsewhere=True)
        if self.line == "refuses":
            raise NotFound("no such image anywhere")
        self.held[key] = WorkloadState(task_id=Snowflake(key[0]), attempt=key[1], state=State.PREPARING)
        return self.held[key]

    def go_on(self, choice: int) -> None:
        """One attempt takes its next step."""
        keys = sorted(self.held)
        if not keys:
            return
        key = keys[choice % len(keys)]
        state = self.held[key]
        if key in self.fenced:
            self.fenced.discard(key)
            del self.held[key]
        elif state.state is State.PREPARING and key not in self.kill_asked:
            self.begun.append(key)
            self.held[key] = replace(state, state=State.RUNNING, started_at=self.clock.now())
        elif state.state is not State.ENDED:
            self._end(key, choice)

    def _end(self, key: Attempt, choice: int) -> None:
        killed = key in self.kill_asked
        code = None if killed else (0, 0, 3)[choice % 3]
        ended = replace(self.held[key], state=State.ENDED, exit_code=code, killed=killed, ended_at=self.clock.now())
        self.held[key] = self.ends[key] = ended

    def flip(self, choice: int) -> None:
        """Somebody freezes or thaws one of its attempts."""
        running = [key for key, state in sorted(self.held.items()) if state.state in (State.RUNNING, State.PAUSED)]
        if running:
            key = running[choice % len(running)]
            other = State.PAUSED if self.held[key].state is State.RUNNING else State.RUNNING
            self.held[key] = replace(self.held[key], state=other)

    def restart(self) -> None:
        """A new life: what it runs goes on, what it was told by word of mouth is forgotten."""
        self.life, self.sequence, self.registered = self.life + 1, 0, False

    def report(self) -> Report:
        self.sequence += 1
        held = list(self.held.values())
        return Report(instance=f"life-{self.life}", sequence=self.sequence, workloads=held, store=self.hostname)

    def take(self, told: Acknowledged) -> None:
        for ref in told.ended:
            state = self.held.get((ref.task_id, ref.attempt))
            if state is not None:
                assert state.state is State.ENDED, "what runs was acknowledged as ended"
                del self.held[ref.task_id, ref.attempt]
        self.fenced |= {(ref.task_id, ref.attempt) for ref in told.fenced} & self.held.keys()


class Line:
    """The host's way to one runner."""

    def __init__(self, runner: MadeUpRunner) -> None:
        self._runner = runner

    async def call(self, route: Any, request: Any, timeout_seconds: float = 10.0) -> Any:
        await asyncio.sleep(0)
        if self._runner.line == "cut":
            raise NotDelivered("no connection")
        answer = self._runner.answer(request)
        if self._runner.line == "deaf":
            raise NodeUnreachable("no answer in time")
        return answer


@dataclass
class Sent:
    """A report on its way."""

    runner: MadeUpRunner
    report: Report
    is_register: bool
    at: float
    host_life: int


class Cluster:
    """One host and its runners; every member a test touches is the real thing but the network."""

    def __init__(self, path: Path, hostnames: Sequence[str] = ("n1", "n2")) -> None:
        self.clock, self.path = ManualClock(), path
        self.runners = {name: MadeUpRunner(name, self.clock) for name in hostnames}
        self.under_way: list[Sent] = []
        self.last_id = self.host_life = 0
        self.start()

    def start(self) -> None:
        """A life of the host; all that it remembers is in the store."""
        self.host_life += 1
        self.db = Database(self.path, schema.MIGRATIONS)
        self.loops = Loops(self.clock)
        self.settings = HostSettings()
        self.outbox = Outbox(since=self.clock.monotonic())
        self.registry = NodeRegistry([], self.clock.monotonic())
        peers = cast(
            RunnerPeers,
            SimpleNamespace(at=lambda hostname, url, fingerprint: Line(self.runners[url.rpartition("/")[2]])),
        )
        self.scheduler = TaskScheduler(
            self.db, self.registry, peers, self.clock, self.outbox, 5.0, 10.0, NO_TARBALLS, Claims(b"key")
        )
        self.overlay = OverlayNetworkManager(self.settings, self.db, self.registry, self.clock)
        addresses = IPReservationManager(self.overlay, b"", random.getrandbits)
        self.dispatch = Dispatch(self.db, self.registry, self.scheduler, self.loops, self.clock, Wake(), addresses)
        self.health = HealthCheck(self.settings, self.registry, self.scheduler, self.clock, self.dispatch.wake)
        members = ("settings", "db", "clock", "registry", "scheduler", "dispatch", "overlay")
        self.host = cast(Host, SimpleNamespace(cluster_id="c", **{name: getattr(self, name) for name in members}))

    async def begin(self) -> None:
        """Know again what the store knows, as the composition root does."""
        rows = await self.db.read(node_rows.every)
        self.registry.nodes.update(NodeRegistry(rows, self.clock.monotonic()).nodes)

    async def restart(self) -> None:
        await self.stop()
        self.start()
        await self.begin()

    async def stop(self) -> None:
        await self.loops.stop()
        self.db.close()

    # --- what people do

    async def submit(self, **more: Any) -> Snowflake:
        self.last_id += 1
        task_id = Snowflake(self.last_id)
        members: dict[str, Any] = {"command": "true", "retry_on": [RetryOn.FAILURE, RetryOn.LOSS]} | more
        task = Task(
            task_id=task_id, batch_id=task_id, owner="local", status=Status.PENDING, submitted_at=rfc3339(0), **members
        )
        await self.db.write(lambda tx: tasks.insert(tx, task, "local"))
        return task_id

    async def steer(self, verb: str, task_id: int) -> None:
        """Kill, pause or resume; what is refused changes nothing."""
        before = await self.task(task_id)
        try:
            await getattr(task_answers, verb)(self.host, PERSON, TaskId(task_id=Snowflake(task_id)))
        except Conflict:
            assert await self.task(task_id) == before

    async def task(self, task_id: int) -> Task:
        return await self.db.read(lambda tx: tasks.get(tx, Snowflake(task_id)))

    async def tasks(self) -> list[Task]:
        return [await self.task(task_id) for task_id in range(1, self.last_id + 1)]

    # --- what time does

    async def passes(self, seconds: float) -> None:
        """Time passes in strides, with the host's loops at their pace."""
        while seconds > 0:
            stride = min(5.0, seconds)
            seconds -= stride
            await self.clock.advance(stride)
            await self.health.step()
            await self.turn()

    async def turn(self) -> None:
        """One pass of the dispatch, until its orders are answered."""
        await self.dispatch.step()
        while self.outbox.under_way:
            await asyncio.sleep(0)
        await self.check_rows()

    # --- what the network does

    def speak(self, runner: MadeUpRunner) -> None:
        """A report goes off; a life that is new introduces itself first."""
        sent = Sent(runner, runner.report(), not runner.registered, self.clock.monotonic(), self.host_life)
        self.under_way.append(sent)

    async def deliver(self, number: int, answered: bool = True) -> None:
        """A report arrives, and perhaps its answer too; it stays under way, so that it can arrive once more."""
        if not self.under_way:
            return
        sent = self.under_way[number % len(self.under_way)]
        if sent.host_life != self.host_life or self.clock.monotonic() - sent.at > WINDOW_SECONDS:
            return  # its signature is not good any more
        if sent.is_register and sent.report.instance != f"life-{sent.runner.life}":
            return  # it would have been in the way of the life that came after
        try:
            told = await self._arrive(sent)
        except NotFound:
            sent.runner.registered = sent.report.instance != f"life-{sent.runner.life}" and sent.runner.registered
            return
        except Conflict:
            return
        await self._check_ended(told)
        if answered and sent.report.instance == f"life-{sent.runner.life}":
            sent.runner.registered = True
            sent.runner.take(told)
        await self.check_rows()

    def lose(self, number: int) -> None:
        if self.under_way:
            self.under_way.pop(number % len(self.under_way))

    async def _arrive(self, sent: Sent) -> Acknowledged:
        caller, clock = Caller(sent.runner.hostname, Role.NODE), self.clock.now()
        if not sent.is_register:
            heartbeat = Heartbeat(hostname=sent.runner.hostname, clock=clock, report=sent.report)
            return await node_answers.heartbeat(self.host, caller, heartbeat)
        machine = Machine(cores=CORES, memory_bytes=10**9, gpus=tuple(Gpu(index=n, name="g") for n in range(GPUS)))
        register = Register(
            hostname=sent.runner.hostname,
            url=f"http://runner/{sent.runner.hostname}",
            version="1",
            engine="made-up",
            machine=machine,
            clock=clock,
            report=sent.report,
        )
        return (await node_answers.register(self.host, caller, register)).acknowledged

    # --- what must hold at every moment

    async def _check_ended(self, told: Acknowledged) -> None:
        for ref in told.ended:
            task = await self.task(ref.task_id)
            over = task.attempt > ref.attempt or task.status in FINAL or task.status is Status.PENDING
            assert over, f"{ref} was acknowledged as ended, but {task.status} is its row"

    async def check_rows(self) -> None:
        """No core and no GPU of a node has two owners."""
        cores: Counter[str] = Counter()
        owned: set[tuple[str, int]] = set()
        for task in await self.tasks():
            if task.status in ON_NODE:
                assert task.assigned_node is not None
                cores[task.assigned_node] += task.required_cores
                mine = {(task.assigned_node, gpu) for gpu in task.assigned_gpus}
                assert not mine & owned, f"{mine & owned} has two owners"
                owned |= mine
        assert all(taken <= CORES for taken in cores.values()), cores

    async def settle(self, rounds: int = 40) -> None:
        """The network is well again and everybody finishes what he does; then the cluster comes to rest."""
        self.under_way.clear()
        for _ in range(rounds):
            for runner in self.runners.values():
                runner.line = "ok"
                for number in range(2 * len(runner.held)):
                    runner.go_on(number // 2)
                self.speak(runner)
                await self.deliver(-1)
                self.under_way.clear()
            await self.passes(5)
            if all(t.status in FINAL or t.status is Status.LOST for t in await self.tasks()) and not any(
                runner.held for runner in self.runners.values()
            ):
                return
        states = [(t.task_id, t.status, t.desired, t.attempt, t.assigned_node) for t in await self.tasks()]
        raise AssertionError(
            f"it never comes to rest: {states} {[(r.hostname, r.held, r.fenced) for r in self.runners.values()]}"
        )
