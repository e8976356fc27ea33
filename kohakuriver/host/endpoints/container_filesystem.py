"""Files of environments, whose containers are on the host itself: the same requests as those about workloads."""

import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from kohakuriver.host.state import Host
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import files_api as api
from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.files_api import at_environment, of_workload
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.system.docker_environments import SeenEnvironment
from kohakuriver.system.files import Files, Packing, Reading
from kohakuriver.system.loops import Loops
from kohakuriver.system.rooted import Root
from kohakuriver.system.tree_watch import Watcher, watching
from kohakuriver.system.unfinished import Note
from kohakuriver.wire.changes import tell_changes
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.serve import Bindable, Streamed, on, on_stream
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.uploads import Body, on_upload

Q = TypeVar("Q")
R = TypeVar("R")
LOOK_SECONDS = 2.0


@asynccontextmanager
async def opened(host: Host, name: str, writable: bool) -> AsyncIterator[Root]:
    """The root of an environment's container for the block; raises NotFound, EngineFailed without Docker."""
    await host.environments.work.connect()
    root = await host.environments.containers.open_root(name, writable)
    try:
        yield root
    finally:
        host.files.begin(root.close)  # not waited for, so that what was opened in it is handed over in any case


def answer(route: Route[Q, R], act: Callable[[Files, Root, Q], Awaitable[R]]) -> Bindable[Host]:
    """Do one thing in it."""

    async def handle(host: Host, caller: Caller, asked: Any) -> R:
        changes = route.method != "GET"
        async with opened(host, asked.name, writable=changes) as root:
            told = await act(host.files, root, of_workload(route, asked))
        if changes:
            _note(host, caller, route, asked)
        return told

    return on(at_environment(route), handle)


def bytes_out(
    route: Route[Q, ByteStream], act: Callable[[Files, Root, Q], Awaitable[Reading | Packing]]
) -> Bindable[Host]:
    """Give bytes of it."""

    async def handle(host: Host, caller: Caller, asked: Any) -> Streamed:
        async with opened(host, asked.name, writable=False) as root:
            made = await act(host.files, root, of_workload(route, asked))
        _note(host, caller, route, asked)
        return Streamed(made.chunks(), made.headers, made.close)

    return on_stream(at_environment(route), handle)


def bytes_in(route: Route[Q, R], act: Callable[[Files, Root, Q, AsyncIterator[bytes]], Awaitable[R]]) -> Bindable[Host]:
    """Take bytes into it."""

    async def handle(host: Host, caller: Caller, asked: Any, body: Body) -> R:
        is_tree, goes_on = route is api.UNPACK, getattr(asked, "part", None) is not None
        note = Note(asked.name, asked.path if is_tree else posixpath.dirname(asked.path) or "/", is_tree)
        async with opened(host, asked.name, writable=True) as root, host.unfinished.noted(note, goes_on):
            told = await act(host.files, root, of_workload(route, asked), body.chunks)
        _note(host, caller, route, asked)
        return told

    return on_upload(at_environment(route), handle)


async def sweep(host: Host) -> None:
    """Take away the parts of files that nobody goes on with."""
    await host.unfinished.sweep(host.files, lambda name: opened(host, name, writable=True))


async def watch(host: Host, caller: Caller, asked: Any, socket: Socket) -> None:
    """Tell what changes until the peer goes, or the container comes to be otherwise."""
    async with opened(host, asked.name, writable=False) as root:
        as_it_was = await host.environments.containers.get(asked.name)
        wanted = of_workload(stream_api.WATCH, asked)
        looking = Loops(host.clock)
        with watching(host.files, Watcher(host.files, root, wanted, lambda: True)) as watcher:
            looking.spawn("a watched environment", _stop_when_other(host, as_it_was, watcher))
            try:
                await tell_changes(watcher.changes(), watcher.stop, socket)
            finally:
                await looking.stop()


async def _stop_when_other(host: Host, as_it_was: SeenEnvironment, watcher: Watcher) -> None:
    """What is held open of a container that has ended is nobody's any more."""
    seen: SeenEnvironment | None = as_it_was
    while seen == as_it_was:
        await host.clock.sleep(LOOK_SECONDS)
        with suppress(EngineFailed):
            found = {each.name: each for each in await host.environments.containers.all()}
            seen = found.get(as_it_was.name)
    watcher.stop()


def _note(host: Host, caller: Caller, route: Route[Any, Any], asked: Any) -> None:
    host.auth.notes.add(caller, Deed(f"environment.{route.name}", f"environment:{asked.name}", asked.path))


ANSWERS: list[Bindable[Host]] = [
    answer(api.LIST, Files.list),
    answer(api.STAT, Files.stat),
    bytes_out(api.READ, Files.read),
    bytes_out(api.DOWNLOAD, Files.download),
    bytes_out(api.PACK, Files.pack),
    bytes_in(api.WRITE, Files.write),
    bytes_in(api.UPLOAD, Files.write),
    bytes_in(api.UNPACK, Files.unpack),
    answer(api.MKDIR, Files.make_directory),
    answer(api.RENAME, Files.rename),
    answer(api.DELETE, Files.delete),
]
CHANNELS = [on_channel(stream_api.WATCH_AT_ENVIRONMENT, watch)]
