"""A host on loopback over real HTTP, with made-up runners: attempts that end at once, or when a test says so."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from kohakuriver.host.app import running_host
from kohakuriver.host.state import Host
from kohakuriver.model import host_api, runner_api, runner_vps_api
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, Conflict, EngineFailed, NotFound, RiverError
from kohakuriver.model.image import NodeImage, SyncPhase, SyncState
from kohakuriver.model.node import Gpu, Machine, NumaNode
from kohakuriver.model.report import (
    Acknowledged,
    Changed,
    Claim,
    Heartbeat,
    Register,
    Registered,
    Report,
    State,
    WorkloadState,
)
from kohakuriver.model.runner_api import (
    Attempt,
    Execute,
    Kill,
    Nothing,
    ReadOutput,
    RunnerHealth,
    SyncImage,
    TaskRef,
)
from kohakuriver.model.runner_vps_api import TellInside
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.vps import Snapshot, SnapshotId, SnapshotState, TakeSnapshot
from kohakuriver.runner.attempt import claim_of
from kohakuriver.system.clock import Clock
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire.call import Peer
from kohakuriver.wire.listen import listening
from kohakuriver.wire.serve import Answer, Edge, Identified, Incoming, Streamed, build_app, on, on_stream
from kohakuriver.wire.sign import REQUEST_HEADER, Signer, SteadyTime, Verifier
from tests.manual_clock import ManualClock

T = TypeVar("T")
Key = tuple[int, int]
RETRY: dict[str, Any] = {"max_attempts": 3, "retry_on": ["loss"]}


@dataclass
class MadeUpRunner:
    """Speaks the wire for real; what its attempts do is written in their command.

    `true` and `false` end at once, `stay` runs until killed, `prepare` never starts, `refuse` and `refuse here` and
    `conflict` are turned away, `lose the answer` runs but the host never hears so. It reports when told to, and by
    itself after each order while `talks` stands.
    """

    hostname: str
    host: Peer
    clock: Clock
    machine: Machine
    url: str = ""
    talks: bool = True
    instance: str = "first life"
    store: str = "the records"
    sequence: int = 0
    held: dict[Key, WorkloadState] = field(default_factory=dict)
    orders: list[Any] = field(default_factory=list)
    executed: list[Key] = field(default_factory=list)
    output: dict[Key, bytes] = field(default_factory=dict)
    told: list[Acknowledged] = field(default_factory=list)
    refusal: RiverError | None = None
    saved: list[Snapshot] = field(default_factory=list)
    claims: dict[Key, Claim] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)  # VPS of which there is a container, and its attempt
    busy: set["asyncio.Task[None]"] = field(default_factory=set)

    async def register(self) -> Registered:
        request = Register(
            hostname=self.hostname,
            url=self.url,
            version="0.1.0",
            engine="made-up",
            machine=self.machine,
            clock=self.clock.now(),
            report=self.report(),
        )
        answer = await self.host.call(host_api.NODE_REGISTER, request)
        self.take(answer.acknowledged)
        return answer

    async def heartbeat(self, **more: Any) -> Acknowledged:
        members: dict[str, Any] = {"hostname": self.hostname, "clock": self.clock.now(), "report": self.report()} | more
        answer = await self.host.call(host_api.NODE_HEARTBEAT, Heartbeat(**members))
        self.take(answer)
        return answer

    async def change(self) -> Acknowledged:
        answer = await self.host.call(host_api.NODE_REPORT, Changed(hostname=self.hostname, report=self.report()))
        self.take(answer)
        return answer

    def report(self) -> Report:
        self.sequence += 1
        held = list(self.held.values())
        return Report(instance=self.instance, sequence=self.sequence, workloads=held, store=self.store)

    def take(self, told: Acknowledged) -> None:
        self.told.append(told)
        for ref in (*told.ended, *told.fenced):
            self.held.pop((ref.task_id, ref.attempt), None)
        for ref in told.doubted:
            key = (ref.task_id, ref.attempt)
            self.held[key] = replace(self.held[key], claim=self.claims.get(key))

    def begin_another_life(self) -> None:
        """As after `kill -9`: what it runs goes on."""
        self.instance, self.sequence = self.instance + "'", 0

    def end(self, task_id: str, exit_code: int = 0, **more: Any) -> None:
        """Let the attempt of a task end."""
        key = next(key for key in self.held if key[0] == int(task_id))
        ended: dict[str, Any] = {"state": State.ENDED, "exit_code": exit_code, "ended_at": self.clock.now()} | more
        self.held[key] = replace(self.held[key], **ended)

    def busy_with(self, key: Key, busy: bool | None) -> None:
        """What its reports say of a VPS from now on."""
        self.held[key] = replace(self.held[key], busy=busy)

    def soon_tell(self) -> None:
        if self.talks:
            task = asyncio.get_running_loop().create_task(self._tell())
            self.busy.add(task)
            task.add_done_callback(self.busy.discard)

    async def _tell(self) -> None:
        with suppress(NotFound):
            await self.change()


async def execute(runner: MadeUpRunner, caller: Caller, asked: Execute) -> WorkloadState:
    key = (asked.task_id, asked.attempt)
    runner.orders.append(asked)
    if runner.refusal is not None:
        raise runner.refusal
    word = " ".join([asked.spec.command, *asked.spec.arguments])
    if word == "refuse here":
        raise EngineFailed("no room for the image", retry_elsewhere=True)
    if word == "refuse":
        raise BadRequest("registry_image: no such image anywhere")
    if word == "conflict":
        raise Conflict("it is still cleaning up")
    if key not in runner.held:
        runner.executed.append(key)
        state = WorkloadState(
            task_id=asked.task_id, attempt=asked.attempt, state=State.RUNNING, started_at=runner.clock.now()
        )
        if word in ("true", "false"):
            code = 0 if word == "true" else 3
            state = replace(state, state=State.ENDED, exit_code=code, ended_at=runner.clock.now(), stdout_bytes=5)
        runner.held[key] = replace(state, state=State.PREPARING, started_at=None) if word == "prepare" else state
    runner.claims[key] = claim_of(asked)
    if asked.vps is not None:
        runner.kept[asked.task_id] = asked.attempt
    if word == "lose the answer":
        raise ConnectionResetError("the line went dead")
    runner.soon_tell()
    return runner.held[key]


async def kill(runner: MadeUpRunner, caller: Caller, asked: Kill) -> WorkloadState:
    runner.orders.append(asked)
    state = _held(runner, asked)
    runner.held[asked.task_id, asked.attempt] = replace(
        state, state=State.ENDED, killed=True, signal=15, ended_at=runner.clock.now()
    )
    runner.soon_tell()
    return runner.held[asked.task_id, asked.attempt]


async def stop_vps(runner: MadeUpRunner, caller: Caller, asked: Kill) -> WorkloadState:
    runner.orders.append(asked)
    state = _held(runner, asked)
    ended = replace(state, state=State.ENDED, exit_code=0, ended_at=runner.clock.now())
    runner.held[asked.task_id, asked.attempt] = ended
    runner.soon_tell()
    return ended


async def delete_vps(runner: MadeUpRunner, caller: Caller, asked: TaskRef) -> Nothing:
    runner.orders.append(asked)
    runner.kept.pop(asked.task_id, None)
    return Nothing()


async def discard(runner: MadeUpRunner, caller: Caller, asked: Attempt) -> Nothing:
    del runner.held[asked.task_id, _held(runner, asked).attempt]
    runner.kept.pop(asked.task_id, None)
    return Nothing()


async def tell_inside(runner: MadeUpRunner, caller: Caller, asked: TellInside) -> Nothing:
    runner.orders.append(asked)
    return Nothing()


async def snapshots(runner: MadeUpRunner, caller: Caller, asked: TaskRef) -> list[Snapshot]:
    return [each for each in runner.saved if each.task_id == asked.task_id]


async def take_snapshot(runner: MadeUpRunner, caller: Caller, asked: TakeSnapshot) -> Snapshot:
    runner.saved.append(Snapshot(task_id=asked.task_id, timestamp=len(runner.saved) + 1, message=asked.message))
    return replace(runner.saved[-1], state=SnapshotState.TAKING)


async def delete_snapshot(runner: MadeUpRunner, caller: Caller, asked: SnapshotId) -> Nothing:
    runner.saved = [each for each in runner.saved if each.timestamp != asked.timestamp]
    return Nothing()


async def pause(runner: MadeUpRunner, caller: Caller, asked: Attempt) -> WorkloadState:
    return _flip(runner, asked, State.PAUSED)


async def resume(runner: MadeUpRunner, caller: Caller, asked: Attempt) -> WorkloadState:
    return _flip(runner, asked, State.RUNNING)


def _flip(runner: MadeUpRunner, asked: Attempt, state: State) -> WorkloadState:
    runner.orders.append(asked)
    runner.held[asked.task_id, asked.attempt] = replace(_held(runner, asked), state=state)
    runner.soon_tell()
    return runner.held[asked.task_id, asked.attempt]


def _held(runner: MadeUpRunner, asked: Kill | Attempt) -> WorkloadState:
    key = (asked.task_id, asked.attempt)
    if key not in runner.held:
        raise NotFound("no such attempt here")
    return runner.held[key]


async def output(runner: MadeUpRunner, caller: Caller, asked: ReadOutput) -> Streamed:
    if asked.attempt is None or (asked.task_id, asked.attempt) not in runner.output:
        raise NotFound("no output of that")
    whole = runner.output[asked.task_id, asked.attempt]

    async def chunks() -> AsyncIterator[bytes]:
        at = asked.offset
        while at < len(whole):
            yield whole[at : at + 3]
            at += 3

    return Streamed(chunks(), {runner_api.OFFSET_HEADER: str(asked.offset)})


async def health(runner: MadeUpRunner, caller: Caller, asked: Nothing) -> RunnerHealth:
    return RunnerHealth(hostname=runner.hostname, version="0", cluster_id="")


async def images(runner: MadeUpRunner, caller: Caller, asked: Nothing) -> list[NodeImage]:
    return []


async def sync(runner: MadeUpRunner, caller: Caller, asked: SyncImage | runner_api.WhichSync) -> SyncState:
    runner.orders.append(asked)
    return SyncState(phase=SyncPhase.PRESENT)


ANSWERS: list[Answer[MadeUpRunner]] = [
    on(runner_api.EXECUTE, execute),
    on(runner_vps_api.CREATE_VPS, execute),
    on(runner_vps_api.RESTART_VPS, execute),
    on(runner_vps_api.STOP_VPS, stop_vps),
    on(runner_vps_api.DELETE_VPS, delete_vps),
    on(runner_vps_api.SNAPSHOTS, snapshots),
    on(runner_vps_api.TAKE_SNAPSHOT, take_snapshot),
    on(runner_vps_api.DELETE_SNAPSHOT, delete_snapshot),
    on(runner_vps_api.TELL_INSIDE, tell_inside),
    on(runner_api.KILL, kill),
    on(runner_api.DISCARD, discard),
    on(runner_api.PAUSE, pause),
    on(runner_api.RESUME, resume),
    on_stream(runner_api.STDOUT, output),
    on_stream(runner_api.STDERR, output),
    on(runner_api.HEALTH, health),
    on(runner_api.IMAGES, images),
    on(runner_api.SYNC, sync),
    on(runner_api.SYNC_SHOW, sync),
]


async def _let_in(runner: MadeUpRunner, caller: Caller, owns: Ownership, asked: Any) -> None:
    assert caller.name == "host"


@dataclass
class House:
    """A host, and how to speak with it as a person and as runners."""

    folder: Path
    host: Host
    http: aiohttp.ClientSession
    clock: Clock
    stack: AsyncExitStack

    @property
    def secret(self) -> bytes:
        return load_secret(self.folder / "secret")

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and JSON (or text) of one request by a person."""
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            more["data"] = io.BytesIO(text.encode())
            more["headers"] = {"Content-Type": "application/json"} | more.get("headers", {})
        async with self.http.request(method, self.host.url + path, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def get(self, path: str) -> Any:
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return body

    async def post(self, path: str, body: Any = None) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status in (200, 202), answer
        return answer

    async def refused(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        """Status and message of a request that must be refused, in the one shape that refusals have."""
        status, answer = await self.ask(method, path, body, **more)
        assert status >= 400 and answer.keys() == {"error"}, answer
        assert answer["error"].keys() == {"code", "message", "details"}
        return status, answer["error"]["message"]

    async def submit(self, command: str, **more: Any) -> str:
        word, *arguments = command.split()
        made = await self.post("/api/tasks", {"command": word, "arguments": arguments, **more})
        return str(made["task_ids"][0])

    async def task(self, task_id: str) -> Any:
        return await self.get(f"/api/tasks/{task_id}")

    async def until(self, look: Callable[[], Awaitable[T]], what: str = "it") -> T:
        """What `look` gives once that is true of it; meanwhile a little time passes, as loops may be having a rest."""

        async def look_later() -> T:
            if isinstance(self.clock, ManualClock):
                await self.clock.advance(0.01)
            return await look()

        return await until(look_later, what)

    async def becomes(self, task_id: str, *statuses: str, attempt: int = 0) -> Any:
        """The task, once it is in one of these statuses (by this attempt)."""

        async def look() -> Any:
            found = await self.task(task_id)
            return found if found["status"] in statuses and attempt in (0, found["attempt"]) else None

        return await self.until(look, f"{task_id} to become {statuses}")

    async def node_becomes(self, hostname: str, status: str) -> Any:
        async def look() -> Any:
            found = await self.get(f"/api/nodes/{hostname}")
            return found if found["status"] == status else None

        return await self.until(look, f"{hostname} to become {status}")

    async def history(self, task_id: str) -> list[str]:
        """What happened to a task, word by word."""
        entries = await self.get(f"/api/tasks/{task_id}/history")
        return [entry["event"] or entry["detail"] or "submitted" for entry in entries]

    async def rows(self) -> Any:
        """All that the store holds, to see that nothing changed."""

        def everything(tx: Any) -> Any:
            names = [row[0] for row in tx.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            kept = [name for name in names if name not in ("audit", "facts", "sqlite_sequence")]  # not of tasks
            return {name: [tuple(row) for row in tx.execute(f"SELECT * FROM {name}")] for name in kept}

        return await self.host.db.read(everything)

    def peer(self, name: str) -> Peer:
        """Speaks with the host as the runner of this name."""
        return Peer(self.http, self.host.url, Signer(name, self.secret, SteadyTime()))

    async def runner(self, hostname: str = "n1", cores: int = 4, gpus: int = 2, joins: bool = True) -> MadeUpRunner:
        """A runner that has joined the host."""
        machine = Machine(
            cores=cores,
            memory_bytes=8 * 10**9,
            gpus=tuple(Gpu(index=number, name="G1", memory_bytes=10**9) for number in range(gpus)),
            numa_nodes=(NumaNode(index=0, cpu_ids=tuple(range(cores))),),
            architecture="x86_64",
        )
        made = MadeUpRunner(hostname, self.peer(hostname), self.clock, machine)
        verifier = Verifier({"host": self.secret}.get, SteadyTime())

        def identify(incoming: Incoming) -> Identified:
            signed = verifier.verify(incoming.headers[REQUEST_HEADER], incoming.signing)
            return Identified(Caller(signed.name, Role.NODE), signed)

        app = build_app([each.route for each in ANSWERS], ANSWERS, Edge(made, identify, _let_in))
        port = await self.stack.enter_async_context(listening(app, "127.0.0.1", 0))
        made.url = f"http://127.0.0.1:{port}"
        if joins:
            await made.register()
        return made

    async def passes(self, seconds: float, *alive: MadeUpRunner) -> None:
        """Time passes, during which these runners give their signs of life and the host's loops do what is due."""
        assert isinstance(self.clock, ManualClock)
        while seconds > 0:
            stride = min(5.0, seconds)
            seconds -= stride
            await self.clock.advance(stride)
            for runner in alive:
                await runner.heartbeat()
            await self.loops_are_at_rest()

    async def loops_are_at_rest(self) -> None:
        """The host's loops have done all that was due."""
        intervals = {"dispatch": 1.0, "health": 10.0, "runner-monitor": 10.0}
        for name, interval_seconds in intervals.items():

            async def rested(name: str = name, interval_seconds: float = interval_seconds) -> bool:
                done = self.host.loops.last_finished(name)
                is_rung = name == "dispatch" and self.host.dispatch.wake.is_set()
                return done is not None and not is_rung and done + interval_seconds > self.clock.monotonic()

            await self.until(rested, f"{name} to rest")


async def until(look: Callable[[], Awaitable[T]], what: str = "it", seconds: float = 10.0) -> T:
    """What `look` gives once that is true of it; sockets and threads need a moment of real time."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[House]:
    """A host over a folder; one that ran there before is continued."""
    members: dict[str, Any] = {
        "host_port": 0,
        "host_ssh_proxy_port": 0,
        "state_dir": str(folder / "host"),
        "cluster_secret_file": str(folder / "secret"),
        "auth_enabled": False,
    }
    clock = clock or ManualClock(now=time.time())
    async with (
        AsyncExitStack() as stack,
        running_host(HostSettings(**members | settings), clock) as host,
        aiohttp.ClientSession() as http,
        AsyncExitStack() as runners,
    ):
        assert stack is not None
        yield House(folder, host, http, clock, runners)


def play(folder: Path, script: Callable[[House], Awaitable[None]], **settings: Any) -> None:
    """Run a script in a house on a clock that stands still until the script moves it."""

    async def body() -> None:
        async with asyncio.timeout(60), running(folder, **settings) as house:
            await script(house)

    asyncio.run(body())


def ids(page: Any) -> list[int]:
    return [int(Snowflake(int(task["task_id"]))) for task in page]


async def running_task(house: House, **more: Any) -> str:
    """A new task, once it runs."""
    task_id = await house.submit("stay", **more)
    await house.becomes(task_id, "running")
    return task_id
