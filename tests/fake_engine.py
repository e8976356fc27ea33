"""An engine made of nothing: true to the contract, cheap by the thousand, and ill on request.

It runs the commands of `fake_shell`. A `FakeNode` is the machine with its workloads, which outlive every `FakeEngine`
made over it as containers outlive a runner; a second engine over the same node is a runner that came back. As with
a real daemon, output reaches the log files only while an engine that started or adopted the workload is open.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.execution import ExecSession, ExecSpec, Inside
from kohakuriver.model.vps import WAIT_COMMAND
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.engine import (
    STDERR_NAME,
    STDOUT_NAME,
    TYPE_LABEL,
    VPS_TYPE,
    ContainerSpec,
    EngineInfo,
    Exit,
    Observed,
    Phase,
    Saved,
    WorkloadKey,
    cut_marker,
)
from kohakuriver.system.image_hands import ImageHands
from kohakuriver.system.process_calls import identity
from kohakuriver.system.process_exec import Beside, begin_exec
from kohakuriver.system.rooted import Root
from tests.fake_shell import Die, EatMemory, Print, Program, Sleep, Step


@dataclass
class Faults:
    """What goes wrong, by the name of the engine's method; change it at any time.

    `before` and `after` hold errors, one per call to come: raised without doing the step, or having done it (the answer
    was lost). `delay_seconds` passes on the clock before the step. Shares are between 0 and 1. `unreachable` is a daemon
    that is down: every call fails, workloads go on, their events are lost. `hold_logs`: only `finish_logs` copies output.
    """

    before: dict[str, list[EngineFailed]] = field(default_factory=dict)
    after: dict[str, list[EngineFailed]] = field(default_factory=dict)
    delay_seconds: dict[str, float] = field(default_factory=dict)
    events_lost: float = 0.0
    events_doubled: float = 0.0
    unreachable: bool = False
    hold_logs: bool = False
    missing_images: set[str] = field(default_factory=set)


class FakeWorkload:
    """One command on a fake node."""

    def __init__(self, spec: ContainerSpec, node: "FakeNode", owner: tuple[str, str]) -> None:
        self.spec, self.node, self.owner = spec, node, owner
        self.phase = Phase.CREATED
        self.exit: Exit | None = None
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.output = {STDOUT_NAME: bytearray(), STDERR_NAME: bytearray()}
        self.attached: FakeEngine | None = None
        self.cpu_seconds = 0.0
        self.adrift = False
        self._program = _program_of(spec)
        self.files = dict(node.saved_files.get(spec.image, {}))  # name → (what is in it, when it was written)
        self._steps: Iterator[Step | int] = iter(())
        self._task: asyncio.Task[None] | None = None
        self._wakes_at = self._left_seconds = 0.0
        self._pending_signals: list[int] = []

    def observed(self) -> Observed:
        is_vps = self.spec.labels.get(TYPE_LABEL) == VPS_TYPE
        return Observed(self.spec.key, self.phase, self.exit, self.started_at, self.finished_at, is_vps)

    def start(self) -> None:
        if not self._program.knows_program():
            raise EngineFailed(f"there is no program {self.spec.command[0]!r} in the workload")
        self.phase, self.started_at = Phase.RUNNING, self.node.clock.now()
        self.node.executions[self.spec.key] += 1
        self._steps = self._program.steps()
        self._go(0.0)
        self._changed()

    def start_again(self) -> None:
        """Run once more, with the files that there are."""
        self.exit = self.finished_at = None
        self.adrift = False
        self._program = _program_of(self.spec)
        self.start()

    def write(self, name: str, text: str) -> None:
        """A file of it changes."""
        self.files[name] = (text, self.node.clock.now())

    def signal(self, number: int) -> None:
        if self.phase not in (Phase.RUNNING, Phase.PAUSED) or (steps := self._program.after(number)) is None:
            return
        if self.phase is Phase.PAUSED and number != signal.SIGKILL:
            self._pending_signals.append(number)
            return
        self._halt()
        self.phase, rest = Phase.RUNNING, self._steps
        self._steps = _chained(steps, rest)
        self._go(0.0)

    def pause(self) -> None:
        self._halt()
        self._left_seconds = self._wakes_at - self.node.clock.monotonic()
        self.phase = Phase.PAUSED
        self._changed()

    def resume(self) -> None:
        self.phase = Phase.RUNNING
        self._go(self._left_seconds)
        self._changed()
        pending, self._pending_signals = self._pending_signals, []
        for number in pending:
            self.signal(number)

    def end(self, exit: Exit) -> None:
        """Be over now, whatever it was doing."""
        self._halt()
        self.phase, self.exit, self.finished_at = Phase.EXITED, exit, self.node.clock.now()
        self._changed()

    def drop(self) -> None:
        """Vanish without a word."""
        self._halt()

    def copy_output(self) -> None:
        """Append what the log files lack."""
        self.spec.log_directory.mkdir(parents=True, exist_ok=True)
        for name, data in self.output.items():
            limit = self.spec.log_limit_bytes
            whole = data if len(data) <= limit else data[:limit] + cut_marker(limit)
            with open(self.spec.log_directory / name, "ab") as file:
                file.write(whole[file.tell() :])

    def open_root(self) -> Root:
        """Its files, which are a directory beside its logs."""
        directory = self.spec.log_directory.with_name(f"{self.spec.log_directory.name}-root")
        directory.mkdir(parents=True, exist_ok=True)
        return Root.at(directory)

    def _changed(self) -> None:
        self.node.tell(self)

    def _halt(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None

    def _go(self, after_seconds: float) -> None:
        self._wakes_at = self.node.clock.monotonic() + after_seconds
        self._task = asyncio.get_running_loop().create_task(self._play(after_seconds))

    async def _play(self, after_seconds: float) -> None:
        if after_seconds == float("inf"):
            await asyncio.get_running_loop().create_future()
        await self.node.clock.sleep(after_seconds)
        for step in self._steps:
            match step:
                case int(code):
                    return self.end(Exit(code))
                case Die(number):
                    return self.end(Exit(128 + number, number))
                case Print(descriptor, data):
                    self._print(STDOUT_NAME if descriptor == 1 else STDERR_NAME, data)
                case Sleep(seconds):
                    await self._sleep(seconds)
                case EatMemory() if self.spec.memory_bytes is not None:
                    return self.end(Exit(128 + signal.SIGKILL, signal.SIGKILL, oom_killed=True))
                case EatMemory():
                    await self._sleep(float("inf"))

    async def _sleep(self, seconds: float) -> None:
        if seconds == float("inf"):
            self._wakes_at = seconds
            await asyncio.get_running_loop().create_future()
        self._wakes_at = self.node.clock.monotonic() + seconds * self.node.time_scale
        await self.node.clock.sleep(seconds * self.node.time_scale)

    def _print(self, name: str, data: bytes) -> None:
        room = self.spec.log_limit_bytes + 1 - len(self.output[name])
        self.output[name] += data[: max(room, 0)]
        if self.attached is not None and not self.attached.faults.hold_logs:
            self.copy_output()


def _program_of(spec: ContainerSpec) -> Program:
    command = ("sh", "-c", "trap 'exit 0' TERM; sleep infinity") if spec.command == WAIT_COMMAND else spec.command
    return Program(command, spec.env, spec.working_dir or "/", len(spec.cpu_ids) or spec.cpu_count or 2)


def _chained(first: Iterator[Step | int], then: Iterator[Step | int]) -> Iterator[Step | int]:
    yield from first
    yield from then


class FakeNode:
    """A machine: its workloads, its clock, and a record of what was really executed.

    `time_scale` multiplies every sleep of a workload. `executions` counts starts per workload and is never reset.
    `saved_files` holds the files that a workload finds, `lacks_room` is why there is none for a snapshot.
    """

    def __init__(self, *, clock: Clock | None = None, time_scale: float = 1.0, seed: int = 0) -> None:
        self.clock: Clock = clock or SystemClock()
        self.time_scale = time_scale
        self.random = random.Random(seed)
        self.workloads: dict[WorkloadKey, FakeWorkload] = {}
        self.executions: Counter[WorkloadKey] = Counter()
        self.engines: list[FakeEngine] = []
        self.images: ImageHands | None = None
        self.saved_files: dict[str, dict[str, tuple[str, float]]] = {}
        self.snapshots: dict[int, list[Saved]] = {}
        self.lacks_room = ""

    def tell(self, workload: FakeWorkload) -> None:
        """Let every open engine that owns the workload know that it changed."""
        for engine in self.engines:
            if engine.owner == workload.owner:
                engine.hear(workload.spec.key)

    def reboot(self) -> None:
        """Every running workload ends as it does when the machine is switched off and on."""
        for workload in self.workloads.values():
            if workload.phase in (Phase.RUNNING, Phase.PAUSED):
                workload.end(Exit(128 + signal.SIGKILL, signal.SIGKILL))

    def drop_all(self) -> None:
        """Forget every workload; for the end of a test."""
        for workload in self.workloads.values():
            workload.drop()
        self.workloads.clear()


class FakeEngine:
    """An `Engine` over a fake node; `calls` lists (method, key) in order."""

    def __init__(self, node: FakeNode, cluster: str = "cluster", name: str = "node") -> None:
        self.node = node
        self.owner = (cluster, name)
        self.workspaces = FakeWorkspaces(self)
        self.faults = Faults()
        self.calls: list[tuple[str, WorkloadKey | None]] = []
        self._heard: asyncio.Queue[WorkloadKey | None] = asyncio.Queue()

    @property
    def images(self) -> ImageHands | None:
        return self.node.images

    async def open(self) -> None:
        await self.step("open", None, lambda: None)
        self.node.engines.append(self)

    async def close(self) -> None:
        if self in self.node.engines:
            self.node.engines.remove(self)
        for workload in self.node.workloads.values():
            if workload.attached is self:
                workload.attached = None
        self._heard.put_nowait(None)

    async def describe(self) -> EngineInfo:
        await self.step("describe", None, lambda: None)
        return EngineInfo(name="fake", version="1", limits_memory=True, limits_cpu=True, gpus=True)

    async def ensure_image(self, image: str) -> None:
        def look() -> None:
            if image in self.faults.missing_images:
                raise EngineFailed(f"there is no image {image!r}")

        await self.step("ensure_image", None, look)

    async def create(self, spec: ContainerSpec) -> None:
        await self.step("create", spec.key, lambda: self._create(spec))

    def _create(self, spec: ContainerSpec) -> None:
        if spec.key in self.node.workloads:
            return
        for other in [each for each in self.mine() if each.spec.name == spec.name]:
            if other.spec.key > spec.key:
                raise Conflict(f"workload {spec.key.task_id} has a newer attempt already")
            self._remove(other.spec.key)
        self.node.workloads[spec.key] = FakeWorkload(spec, self.node, self.owner)

    async def start(self, spec: ContainerSpec) -> None:
        await self.step("start", spec.key, lambda: self._start(spec))

    def _start(self, spec: ContainerSpec) -> None:
        workload = self.find(spec.key)
        self._attach(workload)
        if workload.phase is Phase.CREATED:
            workload.start()

    async def adopt(self, spec: ContainerSpec) -> None:
        await self.step("adopt", spec.key, lambda: self._attach(self.find(spec.key)))

    async def signal(self, key: WorkloadKey, number: int) -> None:
        await self.step("signal", key, lambda: self.find(key).signal(number))

    async def pause(self, key: WorkloadKey) -> None:
        await self.step("pause", key, lambda: self._freeze(key, Phase.RUNNING, FakeWorkload.pause))

    async def resume(self, key: WorkloadKey) -> None:
        await self.step("resume", key, lambda: self._freeze(key, Phase.PAUSED, FakeWorkload.resume))

    def _freeze(self, key: WorkloadKey, only_from: Phase, act: Callable[[FakeWorkload], None]) -> None:
        workload = self.find(key)
        if workload.phase in (Phase.EXITED, Phase.CREATED):
            raise Conflict(f"workload {key.task_id} is not running")
        if workload.phase is only_from:
            act(workload)

    async def observe(self, key: WorkloadKey) -> Observed:
        await self.step("observe", key, lambda: None)
        return self.find(key).observed()

    async def observe_all(self) -> list[Observed]:
        await self.step("observe_all", None, lambda: None)
        return [workload.observed() for workload in self.mine()]

    async def finish_logs(self, spec: ContainerSpec) -> None:
        await self.step("finish_logs", spec.key, lambda: self.find(spec.key).copy_output())

    async def remove(self, key: WorkloadKey) -> None:
        await self.step("remove", key, lambda: self._remove(key))

    async def exec(self, key: WorkloadKey, spec: ExecSpec) -> ExecSession:
        await self.step("exec", key, lambda: self._must_run(key))
        return begin_exec(Beside(identity(os.getpid()), {"PATH": os.defpath}, "/"), spec, "fake")

    async def inside(self, key: WorkloadKey) -> Inside:
        await self.step("inside", key, lambda: self._must_run(key))
        return Inside(os.getpid())

    def _must_run(self, key: WorkloadKey) -> None:
        if self.find(key).phase is not Phase.RUNNING:
            raise Conflict(f"workload {key.task_id} is not running")

    async def open_root(self, key: WorkloadKey, writable: bool) -> Root:
        await self.step("open_root", key, lambda: None)
        return self.find(key).open_root()

    async def events(self) -> AsyncIterator[WorkloadKey]:
        while (key := await self._heard.get()) is not None:
            yield key

    def hear(self, key: WorkloadKey) -> None:
        """Pass an event on, or lose it, or pass it on twice."""
        if self.faults.unreachable or self.node.random.random() < self.faults.events_lost:
            return
        self._heard.put_nowait(key)
        if self.node.random.random() < self.faults.events_doubled:
            self._heard.put_nowait(key)

    def mine(self) -> list[FakeWorkload]:
        """All of ours."""
        return [workload for workload in self.node.workloads.values() if workload.owner == self.owner]

    def find(self, key: WorkloadKey) -> FakeWorkload:
        """One of ours; raises NotFound."""
        workload = self.node.workloads.get(key)
        if workload is None or workload.owner != self.owner:
            raise NotFound(f"the engine has no workload {key.task_id} attempt {key.attempt}")
        return workload

    def _attach(self, workload: FakeWorkload) -> None:
        workload.attached = self
        if not self.faults.hold_logs:
            workload.copy_output()

    def _remove(self, key: WorkloadKey) -> None:
        workload = self.node.workloads.get(key)
        if workload is not None and workload.owner == self.owner:
            workload.drop()
            del self.node.workloads[key]

    async def step(self, name: str, key: WorkloadKey | None, act: Callable[[], None]) -> None:
        """One call of the engine, with all that can go wrong in it."""
        self.calls.append((name, key))
        await self.node.clock.sleep(self.faults.delay_seconds.get(name, 0.0))
        if self.faults.unreachable:
            raise EngineFailed("the fake engine does not answer", retry_elsewhere=True)
        if self.faults.before.get(name):
            raise self.faults.before[name].pop(0)
        act()
        if self.faults.after.get(name):
            raise self.faults.after[name].pop(0)


class FakeWorkspaces:
    """The VPS of a fake node; a snapshot is a copy of a workload's files under the name of an image."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._node = engine, engine.node

    async def start_again(self, key: WorkloadKey) -> None:
        def start() -> None:
            workload = self._engine.find(key)
            if workload.phase is Phase.EXITED:
                workload.start_again()

        await self._engine.step("start_again", key, start)

    async def containers(self, task_id: int) -> list[Observed]:
        seen = [each.observed() for each in self._engine.mine() if each.spec.key.task_id == task_id]
        return sorted((each for each in seen if each.is_vps), key=lambda each: each.key)

    async def changed_since(self, key: WorkloadKey, moment: float) -> bool:
        return any(at >= moment for _, at in self._engine.find(key).files.values())

    async def is_adrift(self, key: WorkloadKey) -> bool:
        return self._engine.find(key).adrift

    async def cpu_seconds(self, key: WorkloadKey) -> float:
        return self._engine.find(key).cpu_seconds

    async def lacks_room(self, key: WorkloadKey, reserve_bytes: int) -> str:
        return self._node.lacks_room

    async def take(self, key: WorkloadKey, saved: Saved) -> None:
        def save() -> None:
            image = f"kohakuriver-snapshot/vps-{key.task_id}:{saved.timestamp}"
            self._node.saved_files[image] = dict(self._engine.find(key).files)
            self._node.snapshots.setdefault(key.task_id, []).append(replace(saved, image=image))

        await self._engine.step("take", key, save)

    async def snapshots(self, task_id: int) -> list[Saved]:
        return list(self._node.snapshots.get(task_id, ()))

    async def delete_snapshot(self, task_id: int, timestamp: int) -> None:
        kept = [saved for saved in self._node.snapshots.get(task_id, ()) if saved.timestamp != timestamp]
        if len(kept) == len(self._node.snapshots.get(task_id, ())):
            raise NotFound(f"VPS {task_id} has no snapshot {timestamp}")
        self._node.snapshots[task_id] = kept

    async def sweep(self, task_id: int) -> None:
        """There is never anything to sweep."""
