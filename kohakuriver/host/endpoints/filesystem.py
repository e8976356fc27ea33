"""Files of workloads: asked for here, found by the runner that has the workload, handed on as they come."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from kohakuriver.host.endpoints.sockets import join
from kohakuriver.host.state import Host
from kohakuriver.host.store import tasks
from kohakuriver.host.store.audit import FAILED, OK, Deed
from kohakuriver.model import files as f
from kohakuriver.model import files_api as api
from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict, NodeUnreachable, NotFound
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.vps import Vps
from kohakuriver.wire.call import DEFAULT_TIMEOUT_SECONDS, Peer, chunks_of
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.serve import Bindable, Handler, Streamed, on, on_stream
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.uploads import Body, UploadHandler, on_upload

Q = TypeVar("Q", bound=f.AtPath)
R = TypeVar("R", f.FilePage, f.FileEntry, f.TreeStored, f.Deleted)
RELAYED_HEADERS = ("Content-Type", "Content-Length", f.SIZE_HEADER, f.VERSION_HEADER)
PATIENCE_SECONDS = 600.0  # a large tree takes a while to go


@dataclass(frozen=True, slots=True)
class Place:
    """The runner that has a workload, and which attempt it is; None: the one of a VPS that has its files."""

    peer: Peer
    attempt: int | None


async def place_of(host: Host, asked: f.Inside) -> Place:
    """Where a workload is; raises NotFound, Conflict before it has a node, NodeUnreachable."""
    task = await host.db.read(lambda tx: tasks.get(tx, asked.task_id))
    attempt: int | None = asked.attempt or task.attempt
    if isinstance(task, Vps) and asked.attempt is None:
        hostname, attempt = task.home, None
    else:
        hostname = await host.db.read(lambda tx: tasks.node_of_attempt(tx, task.task_id, attempt)) if attempt else None
    if hostname is None:
        if asked.attempt:
            raise NotFound(f"task {task.task_id} has no attempt {attempt}")
        raise Conflict(f"{task.task_id} is {task.status}: it has no files yet")
    node = host.registry.nodes.get(hostname)
    if node is None or not node.online:
        raise NodeUnreachable(f"the files of {task.task_id} are on node {hostname}, which is away")
    return Place(host.scheduler.peers.at(hostname, node.row.url, node.row.tls_fingerprint), attempt)


def answer(route: Route[Q, R]) -> Handler[Host, Q, R]:
    """What the runner says to one of these requests; who changed something is written down."""

    async def handle(host: Host, caller: Caller, asked: Q) -> R:
        place = await place_of(host, asked)
        patience = DEFAULT_TIMEOUT_SECONDS if route.method == "GET" else PATIENCE_SECONDS
        told = await place.peer.call(route, replace(asked, attempt=place.attempt), patience)
        if route.method != "GET":
            host.auth.notes.add(caller, _deed(route.name, asked, _detail(asked)))
        return told

    return handle


def bytes_out(route: Route[Q, ByteStream]) -> Handler[Host, Q, Streamed]:
    """The bytes that the runner gives, as they come; how many they were is written down when it is over."""

    async def handle(host: Host, caller: Caller, asked: Q) -> Streamed:
        place = await place_of(host, asked)
        stack, passed = AsyncExitStack(), Passed()
        opened = await stack.enter_async_context(place.peer.stream(route, replace(asked, attempt=place.attempt)))

        async def release() -> None:
            host.auth.notes.add(caller, _deed(route.name, asked, f"{asked.path} {passed.count} bytes"))
            await stack.aclose()

        headers = {name: opened.headers[name] for name in RELAYED_HEADERS if name in opened.headers}
        return Streamed(passed.chunks(chunks_of(opened)), headers, release)

    return handle


def bytes_in(route: Route[Q, R]) -> UploadHandler[Host, Q, R]:
    """Hand the body on to the runner as it comes; how many bytes passed is written down, also when it breaks off."""

    async def handle(host: Host, caller: Caller, asked: Q, body: Body) -> R:
        place, passed, result = await place_of(host, asked), Passed(), FAILED
        try:
            chunks = passed.chunks(body.chunks)
            told = await place.peer.upload(route, replace(asked, attempt=place.attempt), chunks, body.size)
            result = OK
            return told
        finally:
            host.auth.notes.add(caller, _deed(route.name, asked, f"{asked.path} {passed.count} bytes", result))

    return handle


async def watch(host: Host, caller: Caller, asked: f.WatchFiles, socket: Socket) -> None:
    """Join the caller with the runner that watches."""
    place = await place_of(host, asked)
    await join(socket, await place.peer.open(stream_api.WATCH_AT_RUNNER, replace(asked, attempt=place.attempt)))


@dataclass(slots=True)
class Passed:
    """How many bytes went by."""

    count: int = 0

    async def chunks(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same bytes, counted."""
        async for chunk in source:
            self.count += len(chunk)
            yield chunk


def _deed(action: str, asked: f.AtPath, detail: str, result: str = OK) -> Deed:
    return Deed(action, f"task:{asked.task_id}", detail, result)


def _detail(asked: f.AtPath) -> str:
    return f"{asked.path} -> {asked.target}" if isinstance(asked, f.RenameFile) else asked.path


ANSWERS: list[Bindable[Host]] = [
    on(api.LIST, answer(api.LIST)),
    on(api.STAT, answer(api.STAT)),
    on_stream(api.READ, bytes_out(api.READ)),
    on_stream(api.DOWNLOAD, bytes_out(api.DOWNLOAD)),
    on_stream(api.PACK, bytes_out(api.PACK)),
    on_upload(api.WRITE, bytes_in(api.WRITE)),
    on_upload(api.UPLOAD, bytes_in(api.UPLOAD)),
    on_upload(api.UNPACK, bytes_in(api.UNPACK)),
    on(api.MKDIR, answer(api.MKDIR)),
    on(api.RENAME, answer(api.RENAME)),
    on(api.DELETE, answer(api.DELETE)),
]
CHANNELS = [on_channel(stream_api.WATCH, watch)]
