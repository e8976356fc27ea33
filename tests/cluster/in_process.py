"""Clusters within the test's own process: real hosts and runners over real HTTP, on machines that are made up."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kohakuriver.host.app import running_host
from kohakuriver.model.node import Gpu, Machine, Metrics, NumaNode
from kohakuriver.model.settings import HostSettings, RunnerSettings
from kohakuriver.runner.app import running_runner
from kohakuriver.system.clock import SystemClock
from tests.cluster.cluster import PATIENCE_SECONDS, Cluster
from tests.fake_engine import FakeEngine, FakeNode, Faults
from tests.ports import free_port

T = TypeVar("T")
FIRST_GATE_SECONDS = 1_000_000  # who sleeps longer than this waits at a gate
HEARTBEAT_SECONDS, TIMEOUT_FACTOR = 0.25, 6.0
KILL_GRACE_SECONDS = 0.5
LOG_LIMIT_BYTES = 6_000_000


class Loop:
    """An event loop in a thread of its own, in which parts live."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="cluster")
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_SECONDS)

    def close(self) -> None:
        self.do(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class GateClock(SystemClock):
    """Real time, but a very long sleep lasts until its gate is opened."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}

    async def sleep(self, seconds: float) -> None:
        if seconds < FIRST_GATE_SECONDS or seconds == float("inf"):
            return await super().sleep(seconds)
        await self.gates[round(seconds)].wait()


@dataclass(frozen=True, slots=True)
class SleepGate:
    """A gate made of a sleep; `opened` is told by the test's thread."""

    number: int
    tell: Callable[[], object]

    @property
    def wait(self) -> str:
        return f"sleep {self.number}"

    def open(self) -> None:
        self.tell()


@dataclass
class LivePart:
    """A program that lives as long as its context is held."""

    thread: Loop
    make: Callable[[], AbstractAsyncContextManager[object]]
    alive: bool = False
    _end: asyncio.Event = field(default_factory=asyncio.Event)
    _life: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self.thread.do(self._start())
        self.alive = True

    def stop(self) -> None:
        if self.alive:
            self.thread.do(self._stop())
        self.alive = False

    def kill(self) -> None:
        """The same: what is not on disk is gone either way."""
        self.stop()

    async def _start(self) -> None:
        self._end.clear()
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(up))
        await asyncio.wait((up, self._life), return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            await self._life  # which raises what went wrong

    async def _live(self, up: "asyncio.Future[None]") -> None:
        async with self.make():
            up.set_result(None)
            await self._end.wait()

    async def _stop(self) -> None:
        assert self._life is not None
        self._end.set()
        await self._life


@dataclass(frozen=True, slots=True)
class MadeUpMachine:
    """What a fake node has."""

    cores: int = 4
    gpus: int = 2

    async def machine(self) -> Machine:
        return Machine(
            cores=self.cores,
            memory_bytes=64 * 10**9,
            gpus=tuple(Gpu(index=n, name="Dream", memory_bytes=80 * 10**9) for n in range(self.gpus)),
            numa_nodes=(NumaNode(index=0, cpu_ids=tuple(range(self.cores))),),
        )

    async def sample(self) -> Metrics:
        return Metrics(cpu_percent=12.5, memory_total_bytes=64 * 10**9, memory_used_bytes=10**9)


@dataclass
class FakeCluster(Cluster):
    """A host and its nodes in this process; `faults` and `machines` are by node, and outlive its runner."""

    folder: Path
    thread: Loop
    names: tuple[str, ...]
    runner_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kind: str = "fake"
    port: int = field(default_factory=free_port)
    host: LivePart = field(init=False)
    runners: dict[str, LivePart] = field(default_factory=dict)
    machines: dict[str, FakeNode] = field(default_factory=dict)
    faults: dict[str, Faults] = field(default_factory=dict)
    clock: GateClock = field(default_factory=GateClock)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(FIRST_GATE_SECONDS)
        settings = HostSettings(
            host_port=self.port,
            host_ssh_proxy_port=0,
            state_dir=str(self.folder / "host"),
            shared_dir=str(self.folder / "shared"),
            cluster_secret_file=str(self.folder / "secret"),
            auth_enabled=False,
            heartbeat_interval_seconds=HEARTBEAT_SECONDS,
            heartbeat_timeout_factor=TIMEOUT_FACTOR,
            cleanup_check_interval_seconds=0.2,
            kill_grace_seconds=KILL_GRACE_SECONDS,
        )
        self.host = LivePart(self.thread, lambda: running_host(settings, SystemClock()))
        for name in self.names:
            self.machines[name] = FakeNode(clock=self.clock)
            self.faults[name] = Faults()
            self.runners[name] = self.make_runner(name, name)

    def make_runner(self, name: str, folder: str) -> LivePart:
        """A runner with a port and a state of its own."""
        settings = RunnerSettings(
            host_port=self.port,
            runner_hostname=name,
            runner_port=free_port(),
            state_dir=str(self.folder / folder),
            cluster_secret_file=str(self.folder / "secret"),
            log_limit_bytes=LOG_LIMIT_BYTES,
        )
        settings = replace(settings, **self.runner_settings.get(folder, {}))
        machine = MadeUpMachine()
        return LivePart(self.thread, lambda: running_runner(settings, self._engine(name), SystemClock(), machine))

    def make_twin(self, name: str) -> LivePart:
        """Another runner of that name, on a machine of its own."""
        return self.make_runner(name, f"twin-of-{name}")

    def _engine(self, name: str) -> FakeEngine:
        engine = FakeEngine(self.machines[name], "cluster", name)
        engine.faults = self.faults[name]
        return engine

    def gate(self) -> SleepGate:
        number = next(self._numbers)
        shut = self.clock.gates[number] = asyncio.Event()
        return SleepGate(number, lambda: self.thread.loop.call_soon_threadsafe(shut.set))

    def forget_machines(self) -> None:
        """Whatever still runs on them goes."""

        async def drop() -> None:
            for machine in self.machines.values():
                machine.drop_all()

        self.thread.do(drop())
