"""Files of a root behind asyncio: every request is worked off by a bounded pool of threads, piece by piece.

No thread is held while the network is waited for, so a slow reader or writer takes none from others.
"""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from kohakuriver.model import files as f
from kohakuriver.model.errors import BadRequest, Conflict, RiverError
from kohakuriver.model.units import rfc3339
from kohakuriver.system.rooted import Entry, Root, kind_of, readable, shown
from kohakuriver.system.rooted_tree import Stopped
from kohakuriver.system.rooted_writing import Writing
from kohakuriver.system.tree_archive import Tally, pack, unpack

T = TypeVar("T")
THREADS = 16
CHUNK_BYTES = 1024 * 1024
GATHER_BYTES = 512 * 1024  # of a body that comes in small pieces, written together


class Files:
    """The threads for files of one program."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "files")
        self.watchers = 0

    def close(self) -> None:
        """Begin nothing new."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(
        self,
        work: Callable[[], T],
        stop: Callable[[], None] = lambda: None,
        undo: Callable[[T], object] = lambda result: None,
    ) -> T:
        """The result of blocking work.

        A thread cannot be cancelled: when nobody wants the result any more it is asked to `stop`, and its end is waited
        for, so that nothing is taken away under its hands. `undo` lets go of a result that nobody takes.
        """
        doing = self.begin(work)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            stop()
            doing.add_done_callback(lambda done: done.cancelled() or done.exception() or undo(done.result()))
            await _end_of(doing)
            raise

    def begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Blocking work, begun; whoever begins it waits for its end, whatever happens."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    # ---- one answer each

    async def list(self, root: Root, asked: f.ListFiles) -> f.FilePage:
        page = await self.run(lambda: root.list(asked.path, asked.after, asked.limit))
        entries = [told(entry) for entry in page.entries]
        return f.FilePage(entries=entries, next=entries[-1].name if page.more else None)

    async def stat(self, root: Root, asked: f.LookAtFile) -> f.FileEntry:
        return told(await self.run(lambda: root.stat(asked.path, asked.follow)))

    async def make_directory(self, root: Root, asked: f.MakeDirectory) -> f.FileEntry:
        await self.run(lambda: root.make_directory(asked.path, asked.parents))
        return told(await self.run(lambda: root.stat(asked.path)))

    async def rename(self, root: Root, asked: f.RenameFile) -> f.FileEntry:
        await self.run(lambda: root.rename(asked.path, asked.target, asked.replace))
        return told(await self.run(lambda: root.stat(asked.target, follow=False)))

    async def delete(self, root: Root, asked: f.DeleteFile) -> f.Deleted:
        """Take it away; when nobody waits any more, what is not gone yet stays."""
        stopped = threading.Event()
        gone = await self.run(lambda: root.delete(asked.path, asked.recursive, stopped.is_set), stopped.set)
        return f.Deleted(entries=gone)

    # ---- bytes out

    async def read(self, root: Root, asked: f.ReadFile) -> "Reading":
        return await Reading.of(self, root, asked.path, asked.offset, asked.length)

    async def download(self, root: Root, asked: f.DownloadFile) -> "Reading":
        """All that is behind the offset; raises Conflict when it is another state of the file than the one named."""
        reading = await Reading.of(self, root, asked.path, asked.offset, f.ANY_SIZE)
        if asked.version and asked.version != reading.version:
            await reading.close()
            raise Conflict(f"version: {shown(asked.path)} has changed since")
        return reading

    async def pack(self, root: Root, asked: f.AtPath) -> "Packing":
        """The tar of a directory; the first piece is read when this returns, so that a refusal can still be one."""
        pieces = pack(root, asked.path)
        first = await self.run(lambda: next(pieces), undo=lambda first: pieces.close())
        return Packing(self, first, pieces)

    # ---- bytes in

    async def write(self, root: Root, asked: f.WriteFile, body: AsyncIterator[bytes]) -> f.FileEntry:
        """Put a file in its place when the whole body is there."""
        part, offset = (asked.part or "", asked.offset) if isinstance(asked, f.UploadFile) else ("", 0)
        if offset and not part:
            raise BadRequest("offset: needs the part that it is in")
        begin = partial(Writing.begin, root, asked.path, asked.mode, part, offset)
        writing = await self.run(begin, undo=Writing.abandon)
        try:
            await self._write_all(writing, body)
            await self.run(writing.finish)
        finally:
            await self.run(writing.abandon)
        return told(await self.run(lambda: root.stat(asked.path)))

    async def _write_all(self, writing: Writing, body: AsyncIterator[bytes]) -> None:
        """One piece is written while the next one comes."""
        under_way: asyncio.Future[None] | None = None
        try:
            async for piece in _gathered(body):
                if under_way is not None:
                    await asyncio.shield(under_way)
                under_way = self.begin(partial(writing.write, piece))
        finally:
            if under_way is not None:
                await _end_of(under_way)
        if under_way is not None:
            under_way.result()

    async def unpack(self, root: Root, asked: f.AtPath, body: AsyncIterator[bytes]) -> f.TreeStored:
        """Put what a tar holds into a directory, as it comes."""
        tally, source = Tally(), _Source(body, asyncio.get_running_loop())
        await self.run(lambda: unpack(root, asked.path, source.read, tally), source.stop)
        return f.TreeStored(entries=tally.entries, size_bytes=tally.bytes)


class Reading:
    """Some bytes of one file, read as they are wanted; `size` is that of the whole file, `version` its state."""

    def __init__(self, files: Files, descriptor: int, span: tuple[int, int], status: os.stat_result) -> None:
        self._files, self._descriptor, (self._at, self._end) = files, descriptor, span
        self._coming: asyncio.Future[bytes] | None = None
        self.size, self.length = status.st_size, self._end - self._at
        self.version = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"

    @classmethod
    async def of(cls, files: Files, root: Root, path: str, offset: int, length: int) -> "Reading":
        """What there is of `length` bytes from `offset`; raises NotFound, Conflict for what is no file."""
        descriptor = await files.run(lambda: root.open_file(path), undo=os.close)
        status = os.fstat(descriptor)
        start = min(offset, status.st_size)
        return cls(files, descriptor, (start, min(status.st_size, start + length)), status)

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says of them."""
        return {
            "Content-Length": str(self.length),
            f.SIZE_HEADER: str(self.size),
            f.VERSION_HEADER: self.version,
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes; raises ConnectionResetError when the file became shorter meanwhile."""
        while self._at < self._end:
            try:
                chunk = await asyncio.shield(self._coming or self._begin())
            except OSError as broken:
                raise ConnectionResetError(f"the file cannot be read on: {broken}") from broken
            if not chunk:
                raise ConnectionResetError("the file became shorter while it was read")
            self._at += len(chunk)
            self._begin()  # the next one is read while this one is sent
            yield chunk

    def _begin(self) -> "asyncio.Future[bytes]":
        count = min(CHUNK_BYTES, self._end - self._at)
        self._coming = self._files.begin(partial(os.pread, self._descriptor, count, self._at))
        return self._coming

    async def close(self) -> None:
        """Let go of the file; it waits for nothing, so that nothing can come between."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self._coming is None:
            return os.close(descriptor)

        def close(done: "asyncio.Future[bytes]") -> None:
            os.close(descriptor)
            if not done.cancelled():
                done.exception()  # nobody asks any more

        self._coming.add_done_callback(close)


class Packing:
    """A directory on its way out as a tar."""

    def __init__(self, files: Files, first: bytes, pieces: Generator[bytes, None, None]) -> None:
        self._files, self._first, self._pieces = files, first, pieces
        self.headers = {"Content-Type": "application/x-tar"}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The tar; raises ConnectionResetError when it cannot be read to its end."""
        yield self._first
        try:
            while piece := await self._files.run(lambda: next(self._pieces, b"")):
                yield piece
        except (OSError, RiverError) as broken:
            raise ConnectionResetError(f"the tree cannot be read on: {broken}") from broken

    async def close(self) -> None:
        """Let go of the tree."""
        await self._files.run(self._pieces.close)


class _Source:
    """A body that comes on the loop, read by a thread, which waits for it."""

    def __init__(self, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces, self._loop = _gathered(body), loop
        self._left = memoryview(b"")
        self._stopped = threading.Event()

    def read(self, count: int) -> bytes:
        """So many bytes, fewer only at the end; raises what the body raises, Stopped when nobody wants it any more."""
        parts: list[memoryview] = []
        while count:
            if not self._left:
                self._left = memoryview(self._more())
                if not self._left:
                    break
            part, self._left = self._left[:count], self._left[count:]
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def stop(self) -> None:
        """Wake whoever waits."""
        self._stopped.set()

    def _more(self) -> bytes:
        coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                return coming.result(timeout=1.0)
        coming.cancel()
        raise Stopped

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")


async def _end_of(doing: "asyncio.Future[T]") -> None:
    """Return when a thread is done, however often one is cancelled meanwhile."""
    cancelled = False
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a thread's while."""
    gathered, size = [], 0
    async for piece in body:
        gathered.append(piece)
        size += len(piece)
        if size >= GATHER_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def told(entry: Entry) -> f.FileEntry:
    """An entry as it travels."""
    status = entry.status
    return f.FileEntry(
        name=readable(entry.name),
        kind=f.Kind(kind_of(status.st_mode)),
        size_bytes=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        modified_at=rfc3339(max(0.0, min(status.st_mtime, 253_402_300_799.0))),
        target=readable(entry.target),
    )
