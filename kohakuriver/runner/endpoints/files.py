"""Files of workloads: each request opens the workload's root, does one thing in it, and closes it again."""

import posixpath
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from kohakuriver.model import files as f
from kohakuriver.model import files_api as api
from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.files_api import at_runner
from kohakuriver.runner.state import Runner
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.system.files import Packing, Reading
from kohakuriver.system.rooted import Root
from kohakuriver.system.tree_watch import Watcher, watching
from kohakuriver.system.unfinished import Note
from kohakuriver.wire.changes import tell_changes
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.serve import Bindable, Streamed, on, on_stream
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.uploads import Body, on_upload


@asynccontextmanager
async def opened(runner: Runner, asked: f.Inside, writable: bool = False) -> AsyncIterator[Root]:
    """The root of a workload for the block; raises NotFound when its container is not there (any more)."""
    root = await runner.bench.engine.open_root(await _key_of(runner, asked), writable)
    try:
        yield root
    finally:
        runner.files.begin(root.close)  # not waited for, so that what was opened in it is handed over in any case


async def _key_of(runner: Runner, asked: f.Inside) -> WorkloadKey:
    """The attempt that is named, else the one that has the files of a VPS: a later one may only have been tried."""
    if asked.attempt is not None:
        return WorkloadKey(asked.task_id, asked.attempt)
    return await runner.bench.snapshots.latest_container(asked.task_id)


def _place(asked: f.Inside) -> str:
    return f"{asked.task_id}/{asked.attempt or ''}"


async def sweep(runner: Runner) -> None:
    """Take away the parts of files that nobody goes on with."""

    def open_root(place: str) -> AbstractAsyncContextManager[Root]:
        task_id, _, attempt = place.partition("/")
        asked = f.Inside(task_id=Snowflake(int(task_id or 0)), attempt=int(attempt) if attempt else None)
        return opened(runner, asked, writable=True)

    await runner.unfinished.sweep(runner.files, open_root)


async def list_files(runner: Runner, caller: Caller, asked: f.ListFiles) -> f.FilePage:
    async with opened(runner, asked) as root:
        return await runner.files.list(root, asked)


async def look_at(runner: Runner, caller: Caller, asked: f.LookAtFile) -> f.FileEntry:
    async with opened(runner, asked) as root:
        return await runner.files.stat(root, asked)


async def read(runner: Runner, caller: Caller, asked: f.ReadFile) -> Streamed:
    async with opened(runner, asked) as root:
        return _streamed(await runner.files.read(root, asked))


async def download(runner: Runner, caller: Caller, asked: f.DownloadFile) -> Streamed:
    async with opened(runner, asked) as root:
        return _streamed(await runner.files.download(root, asked))


async def pack(runner: Runner, caller: Caller, asked: f.AtPath) -> Streamed:
    async with opened(runner, asked) as root:
        return _streamed(await runner.files.pack(root, asked))


async def write(runner: Runner, caller: Caller, asked: f.WriteFile, body: Body) -> f.FileEntry:
    note = Note(_place(asked), posixpath.dirname(asked.path) or "/")
    goes_on = isinstance(asked, f.UploadFile) and asked.part is not None
    async with opened(runner, asked, writable=True) as root, runner.unfinished.noted(note, goes_on):
        return await runner.files.write(root, asked, body.chunks)


async def unpack(runner: Runner, caller: Caller, asked: f.AtPath, body: Body) -> f.TreeStored:
    note = Note(_place(asked), asked.path, deep=True)
    async with opened(runner, asked, writable=True) as root, runner.unfinished.noted(note):
        return await runner.files.unpack(root, asked, body.chunks)


async def make_directory(runner: Runner, caller: Caller, asked: f.MakeDirectory) -> f.FileEntry:
    async with opened(runner, asked, writable=True) as root:
        return await runner.files.make_directory(root, asked)


async def rename(runner: Runner, caller: Caller, asked: f.RenameFile) -> f.FileEntry:
    async with opened(runner, asked, writable=True) as root:
        return await runner.files.rename(root, asked)


async def delete(runner: Runner, caller: Caller, asked: f.DeleteFile) -> f.Deleted:
    async with opened(runner, asked, writable=True) as root:
        return await runner.files.delete(root, asked)


async def watch(runner: Runner, caller: Caller, asked: f.WatchFiles, socket: Socket) -> None:
    """Tell what changes until the peer goes, or the workload has ended or come to be otherwise."""
    held = runner.workloads.find(asked.task_id, asked.attempt)
    state = held.state.state if held else None

    def is_as_it_was() -> bool:
        return held is None or held.state.state is state

    async with opened(runner, asked) as root:
        with watching(runner.files, Watcher(runner.files, root, asked, is_as_it_was)) as watcher:
            await tell_changes(watcher.changes(), watcher.stop, socket)


def _streamed(made: Reading | Packing) -> Streamed:
    return Streamed(made.chunks(), made.headers, made.close)


ANSWERS: list[Bindable[Runner]] = [
    on(at_runner(api.LIST), list_files),
    on(at_runner(api.STAT), look_at),
    on_stream(at_runner(api.READ), read),
    on_stream(at_runner(api.DOWNLOAD), download),
    on_stream(at_runner(api.PACK), pack),
    on_upload(at_runner(api.WRITE), write),
    on_upload(at_runner(api.UPLOAD), write),
    on_upload(at_runner(api.UNPACK), unpack),
    on(at_runner(api.MKDIR), make_directory),
    on(at_runner(api.RENAME), rename),
    on(at_runner(api.DELETE), delete),
]
CHANNELS = [on_channel(stream_api.WATCH_AT_RUNNER, watch)]
