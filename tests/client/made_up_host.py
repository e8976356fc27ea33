"""A host whose answers are made up, served on loopback by the real wire from the real table of routes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from kohakuriver.model import host_api as api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotAllowed, NotFound
from kohakuriver.model.lifecycle import Event, Status
from kohakuriver.model.node import Gpu, Metrics, Node, NodeStatus, Sample
from kohakuriver.model.route import Route
from kohakuriver.model.runner_api import Nothing, ReadOutput
from kohakuriver.model.task import HistoryEntry, SubmitTask, Task
from kohakuriver.wire.serve import Answer, Bindable, Edge, Identified, Incoming, Streamed, build_app
from kohakuriver.wire.uploads import Body, UploadAnswer

FIRST = 187_000_000_000_000_001
RUNNING: dict[str, Any] = {"status": Status.RUNNING, "completed_at": None, "exit_code": None}  # changes of a task
Reply = Callable[[Any], Any]


def task(number: int = 0, **changes: Any) -> Task:
    """A made-up task."""
    made = Task(
        task_id=Snowflake(FIRST + number),
        batch_id=Snowflake(FIRST),
        owner="ada",
        status=Status.COMPLETED,
        command="echo",
        arguments=["hello"],
        attempt=1,
        tries=1,
        assigned_node="alpha",
        submitted_at="2024-05-01T10:00:00.000Z",
        started_at="2024-05-01T10:00:01.000Z",
        completed_at="2024-05-01T10:01:03.500Z",
        exit_code=0,
    )
    return replace(made, **changes)


def node(hostname: str = "alpha", **changes: Any) -> Node:
    """A made-up node."""
    gpus = (Gpu(index=0, name="Accelerator", memory_bytes=80 * 10**9),)
    made = Node(
        hostname=hostname,
        url="http://127.0.0.1:8001",
        status=NodeStatus.ONLINE,
        version="0.1.0",
        engine="docker",
        engine_version="20.10",
        cores=8,
        memory_bytes=32 * 10**9,
        gpus=gpus,
        cores_free=6,
        memory_free_bytes=30 * 10**9,
        gpus_free=(0,),
        tasks_running=2,
        metrics=Metrics(cpu_percent=12.5, load_1m=0.5, memory_total_bytes=32 * 10**9, memory_used_bytes=2 * 10**9),
        registered_at="2024-05-01T09:00:00.000Z",
        last_heartbeat_at="2024-05-01T10:00:00.000Z",
    )
    return replace(made, **changes)


def health(*nodes: str) -> api.Health:
    """A made-up cluster."""
    samples = [Sample(at=float(second), cpu_percent=second * 100 / 60, memory_used_bytes=10**9) for second in range(60)]
    each = [
        api.NodeHealth(
            hostname=name,
            status="online",
            cores=8,
            cores_free=6,
            memory_bytes=32 * 10**9,
            gpus=0,
            gpus_free=0,
            tasks_running=2,
            history=samples,
        )
        for name in nodes
    ]
    return api.Health(
        version="0.1.0",
        cluster_id="c0ffee",
        auth_enabled=False,
        nodes_online=len(each),
        nodes_total=len(each),
        cores_total=8 * len(each),
        cores_free=6 * len(each),
        memory_total_bytes=32 * 10**9,
        memory_free_bytes=30 * 10**9,
        gpus_total=0,
        gpus_free=0,
        tasks={"running": 2, "completed": 5, "failed": 0},
        nodes=each,
    )


@dataclass
class MadeUpHost:
    """What it answers, and what it was asked (route name and request, in order)."""

    port: int = 0
    asked: list[tuple[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    outputs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # each answer of bytes is cut after the next of these
    offset_header: bool = True
    tokens: list[str | None] = field(default_factory=list)  # what came with each request to say who it is from

    def answer(self, route: Route[Any, Any], reply: Reply | Any) -> None:
        """Answer a route with a value, or with what a function of the request returns or raises."""
        self.replies[route.name] = reply if callable(reply) else lambda request: reply

    def in_turn(self, route: Route[Any, Any], *values: Any) -> None:
        """Answer a route with one value after the other, then with the last for ever."""
        left = list(values)

        def reply(request: Any) -> Any:
            value = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(value, Exception):
                raise value
            return value

        self.answer(route, reply)

    def requests(self, route: Route[Any, Any]) -> list[Any]:
        return [request for name, request in self.asked if name == route.name]


def _defaults() -> dict[str, Reply]:
    one = task()
    return {
        api.TASK_SUBMIT.name: _submitted,
        api.TASK_LIST.name: lambda request: [one],
        api.TASK_MY.name: lambda request: [one],
        api.TASK_WAITING.name: lambda request: [replace(one, status=Status.PENDING_APPROVAL)],
        api.TASK_SHOW.name: lambda request: replace(one, task_id=request.task_id),
        api.TASK_HISTORY.name: lambda request: [
            HistoryEntry(at=one.submitted_at, event=None, status=Status.PENDING, attempt=0, by="ada"),
            HistoryEntry(at=one.submitted_at, event=Event.PLACED, status=Status.ASSIGNING, attempt=1, node="alpha"),
            HistoryEntry(at=one.submitted_at, event=None, status=Status.RUNNING, attempt=1, detail="asked to kill"),
        ],
        **{
            route.name: lambda request: replace(one, task_id=request.task_id)
            for route in (api.TASK_KILL, api.TASK_PAUSE, api.TASK_RESUME, api.TASK_APPROVE, api.TASK_REJECT)
        },
        api.NODE_LIST.name: lambda request: [node("alpha"), node("beta", status=NodeStatus.OFFLINE)],
        **{
            route.name: lambda request: node(request.hostname)
            for route in (api.NODE_SHOW, api.NODE_DRAIN, api.NODE_RESUME)
        },
        api.NODE_DELETE.name: lambda request: Nothing(),
        api.HEALTH.name: lambda request: health("alpha", "beta"),
    }


def _submitted(request: SubmitTask) -> api.Submitted:
    ids = [Snowflake(FIRST + number) for number in range(max(1, len(request.targets)))]
    return api.Submitted(task_ids=ids, batch_id=ids[0])


def _handler(route: Route[Any, Any]) -> Any:
    async def handle(host: MadeUpHost, caller: Caller, request: Any) -> Any:
        host.asked.append((route.name, request))
        if route in (api.TASK_STDOUT, api.TASK_STDERR) and route.name not in host.replies:
            return _output(host, route.name.rpartition(".")[2], request)
        reply = host.replies.get(route.name)
        if reply is None:
            raise NotAllowed(f"{route.name} is not for you")
        made = reply(request)
        return Streamed(made) if isinstance(made, AsyncIterator) else made

    return handle


def _swallow(route: Route[Any, Any]) -> Any:
    async def handle(host: MadeUpHost, caller: Caller, request: Any, body: Body) -> Any:
        host.bodies.append(b"".join([chunk async for chunk in body.chunks]))
        return await _handler(route)(host, caller, request)

    return handle


def _output(host: MadeUpHost, stream: str, request: ReadOutput) -> Streamed:
    """The bytes asked for, cut where `cuts` says."""
    attempt = request.attempt or 1
    if (stream, attempt) not in host.outputs:
        raise NotFound(f"attempt {attempt} has no {stream}")
    whole = host.outputs[stream, attempt]
    start = request.offset
    if request.lines is not None:
        start = len(whole) - len(b"".join(whole.splitlines(keepends=True)[-request.lines :] if request.lines else []))
    end = start + host.cuts.pop(0) if host.cuts else len(whole)

    async def chunks() -> AsyncIterator[bytes]:
        yield whole[start:end]
        if end < len(whole):
            raise ConnectionResetError("the runner went away")  # as a host says it

    return Streamed(chunks(), {"X-Kohakuriver-Offset": str(start)} if host.offset_header else {})


@contextmanager
def made_up_host() -> Iterator[MadeUpHost]:
    """A running host on a free port of loopback, in a thread of its own."""
    host = MadeUpHost(replies=_defaults())
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[_serve(host, ready, done)])
    thread.start()
    try:
        assert ready.wait(10)
        yield host
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


async def _serve(host: MadeUpHost, ready: threading.Event, done: asyncio.Event) -> None:
    async def allow(*_: Any) -> None:
        return None

    def identify(incoming: Incoming) -> Identified:
        host.tokens.append(incoming.headers.get("Authorization"))
        return Identified(Caller("ada", Role.ADMIN))

    edge: Edge[MadeUpHost] = Edge(host, identify, allow)
    answers: list[Bindable[MadeUpHost]] = [
        UploadAnswer(route, _swallow(route)) if route.raw_body else Answer(route, _handler(route))
        for route in api.ROUTES
    ]
    runner = web.AppRunner(build_app(api.ROUTES, answers, edge), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host.port = runner.addresses[0][1]
    ready.set()
    await done.wait()
    await runner.cleanup()
