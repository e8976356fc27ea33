"""Everything around one runner in a test: a fake host over real HTTP, a fake machine, a clock moved by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from kohakuriver.model import runner_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.node import Gpu, Machine, Metrics
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.runner_api import Attempt, Execute, Kill, ReadOutput, VpsOrder
from kohakuriver.model.runner_vps_api import CREATE_VPS, RESTART_VPS, STOP_VPS
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.model.task import TaskSpec
from kohakuriver.model.vps import WAIT_COMMAND
from kohakuriver.runner.app import running_runner
from kohakuriver.runner.state import Runner
from kohakuriver.runner.vitals import Senses
from kohakuriver.system.engine import Engine, WorkloadKey
from kohakuriver.system.secrets import make_secret
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.fake_engine import FakeEngine, FakeNode
from tests.manual_clock import ManualClock
from tests.runner.fake_host import FakeHost, serving

Q = TypeVar("Q")
R = TypeVar("R")
PATIENCE_SECONDS = 20.0
NODE = "alpha"


class BigMachine:
    """A machine that a test can only dream of."""

    async def machine(self) -> Machine:
        gpus = tuple(Gpu(index=n, name="Dream", memory_bytes=80 * 10**9) for n in range(8))
        return Machine(cores=64, memory_bytes=10**12, gpus=gpus)

    async def sample(self) -> Metrics:
        return Metrics(cpu_percent=12.5, memory_total_bytes=10**12, memory_used_bytes=10**9)


class Stage:
    """One runner between its host and its machine; a second runner may follow the first on the same machine."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory, self._stack = directory, stack
        self.clock = ManualClock()
        self.node = FakeNode(clock=self.clock)
        self.host = FakeHost()
        self.secret = make_secret(directory / "secret")
        self.engine = self.fresh_engine()
        self.senses: Senses = BigMachine()
        self._http: aiohttp.ClientSession | None = None
        self._host_stack, self._runner_stack = AsyncExitStack(), AsyncExitStack()
        self._runner: Runner | None = None
        self._peer: Peer | None = None

    def afterwards(self, work: Callable[[], Awaitable[object]]) -> None:
        """Have it done when all is over."""
        self._stack.push_async_callback(work)

    @property
    def runner(self) -> Runner:
        """The runner that was started last."""
        assert self._runner is not None
        return self._runner

    @property
    def peer(self) -> Peer:
        """That runner as its host sees it."""
        assert self._peer is not None
        return self._peer

    def settings(self, **changes: Any) -> RunnerSettings:
        made: dict[str, Any] = {
            "host_port": self.host.port,
            "runner_hostname": NODE,
            "runner_port": 0,
            "state_dir": str(self.directory / "state"),
            "cluster_secret_file": str(self.directory / "secret"),
            "resource_check_interval_seconds": 30.0,
            **changes,
        }
        return RunnerSettings(**made)

    def fresh_engine(self) -> FakeEngine:
        self.engine = FakeEngine(self.node, self.host.cluster_id, NODE)
        return self.engine

    async def start_host(self) -> None:
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        await self.resume_host()
        self._stack.push_async_callback(self.stop_host)

    async def resume_host(self) -> None:
        await self._host_stack.enter_async_context(serving(self.host, self.secret))

    async def stop_host(self) -> None:
        await self._host_stack.aclose()

    async def start_runner(self, engine: Engine | None = None, **changes: Any) -> Runner:
        assert self._http is not None
        context = running_runner(self.settings(**changes), engine or self.engine, self.clock, self.senses)
        self._runner = await self._runner_stack.enter_async_context(context)
        self._peer = Peer(self._http, self._runner.url, Signer("host", self.secret, SteadyTime()))
        return self._runner

    async def stop_runner(self) -> None:
        await self._runner_stack.aclose()

    async def another_runner(self, **changes: Any) -> Runner:
        """The runner dies and another comes up on the same machine and the same disk."""
        await self.stop_runner()
        return await self.start_runner(self.fresh_engine(), **changes)

    async def close(self) -> None:
        await self.stop_runner()
        self.node.drop_all()

    # ---- what the host does

    async def execute(self, *command: str, task_id: int = 1, attempt: int = 1, **changes: Any) -> WorkloadState:
        return await self.call(runner_api.EXECUTE, request(*command, task_id=task_id, attempt=attempt, **changes))

    async def shell(self, script: str, **changes: Any) -> WorkloadState:
        return await self.execute("sh", "-c", script, **changes)

    async def vps(self, attempt: int = 1, **order: Any) -> WorkloadState:
        """Take on an attempt of a VPS: the first as a new one, later ones to go on."""
        asked = request(*WAIT_COMMAND, attempt=attempt, vps=VpsOrder(is_new=attempt == 1, **order))
        return await self.call(CREATE_VPS if attempt == 1 else RESTART_VPS, asked)

    async def stop_vps(self, attempt: int = 1, spare: int | None = None) -> WorkloadState:
        return await self.call(STOP_VPS, Kill(task_id=Snowflake(1), attempt=attempt, grace_seconds=10.0, spare=spare))

    async def kill(self, task_id: int = 1, attempt: int = 1, grace_seconds: float = 10.0) -> WorkloadState:
        asked = Kill(task_id=Snowflake(task_id), attempt=attempt, grace_seconds=grace_seconds)
        return await self.call(runner_api.KILL, asked)

    async def pause(self, task_id: int = 1, attempt: int = 1) -> WorkloadState:
        return await self.call(runner_api.PAUSE, Attempt(task_id=Snowflake(task_id), attempt=attempt))

    async def resume(self, task_id: int = 1, attempt: int = 1) -> WorkloadState:
        return await self.call(runner_api.RESUME, Attempt(task_id=Snowflake(task_id), attempt=attempt))

    async def call(self, route: Route[Q, R], asked: Q) -> R:
        return await self.peer.call(route, asked)

    async def output(self, route: Route[ReadOutput, ByteStream] = runner_api.STDOUT, **asked: Any) -> bytes:
        async with self.peer.stream(route, ReadOutput(task_id=asked.pop("task_id", Snowflake(1)), **asked)) as answer:
            return await answer.read()

    # ---- what a test waits for

    async def until(self, true: Callable[[], object], pass_seconds: float = 0.001) -> None:
        """Let work go on until it is true; time passes on the clock meanwhile, in steps of so long."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not true():
                await self.clock.advance(pass_seconds)
                await asyncio.sleep(0.001)

    async def told(self, state: str, task_id: int = 1, attempt: int = 1, pass_seconds: float = 0.001) -> WorkloadState:
        """Wait until the host has heard that an attempt is in this state."""
        key = (task_id, attempt)
        await self.until(lambda: key in self.host.told and self.host.told[key].state == state, pass_seconds)
        return self.host.told[key]

    async def forgotten(self) -> None:
        """Wait until the runner holds nothing, and the engine neither."""
        await self.until(lambda: not self.runner.workloads.holds_any and not self.node.workloads, pass_seconds=0.5)

    async def at_rest(self) -> None:
        """Wait until the runner is connected and has joined."""
        await self.until(lambda: self.runner.link.joined)

    def log(self, name: str = "stdout", task_id: int = 1, attempt: int = 1) -> bytes:
        return (self.directory / "state/logs" / str(task_id) / str(attempt) / name).read_bytes()


def request(*command: str, task_id: int = 1, attempt: int = 1, **changes: Any) -> Execute:
    """A request to execute; `changes` go to the spec unless they belong to the request."""
    outer = {
        name: changes.pop(name)
        for name in ("gpus", "numa_node", "secret_env", "tarball", "vps", "registry_login")
        if name in changes
    }
    program, *arguments = command
    spec = TaskSpec(command=program, arguments=arguments, **changes)
    return Execute(task_id=Snowflake(task_id), attempt=attempt, owner="ada", spec=spec, proof="signed", **outer)


Script = Callable[[Stage], Awaitable[None]]


def play(directory: Path, script: Script, runner: bool = True) -> None:
    """Run a script on a stage; unless told otherwise the runner is up and has joined."""

    async def whole() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(directory, stack)
            await stage.start_host()
            stack.push_async_callback(stage.close)
            if runner:
                await stage.start_runner()
                await stage.at_rest()
            await script(stage)

    asyncio.run(whole())


def key(task_id: int = 1, attempt: int = 1) -> WorkloadKey:
    return WorkloadKey(task_id, attempt)
