"""What changes in a tree: found by looking at all of it, as soon as the kernel says that something happened.

So nothing is missed for good: events that were lost, or never came (network file systems tell only what happens on
this machine), are found at the next look.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from kohakuriver.model import files as f
from kohakuriver.model.errors import Conflict, TooMany
from kohakuriver.system.directory_bell import DirectoryBell
from kohakuriver.system.files import Files
from kohakuriver.system.openat2 import file_system_of
from kohakuriver.system.rooted import Root, kind_of, readable, telling
from kohakuriver.system.rooted_tree import Step, Stopped, walk

MAX_ENTRIES, MAX_DIRECTORIES, MAX_WATCHERS = 20_000, 2_000, 64
SETTLE_SECONDS, GLANCE_SECONDS, POLL_SECONDS, HEAL_SECONDS = 0.1, 1.0, 2.0, 15.0
REST_SHARE = 4.0  # looking may take a fifth of the time
# File systems that others change behind the kernel's back (linux/magic.h): NFS, SMB, CIFS, FUSE, 9p, Ceph, Lustre, GPFS.
REMOTE = {0x6969, 0x517B, 0xFE534D42, 0xFF534D42, 0x65735546, 0x01021997, 0x00C36400, 0x0BD00BD0, 0x47504653}


class Look(NamedTuple):
    """One thing, as it was when it was looked at."""

    kind: str
    size: int
    changed_ns: int
    inode: int


class Watcher:
    """Watches one tree of a root; `alive` says whether there is still something to watch."""

    def __init__(self, files: Files, root: Root, asked: f.WatchFiles, alive: Callable[[], bool]) -> None:
        self._files, self._root, self._asked, self._alive = files, root, asked, alive
        self._bell = asyncio.Event()
        self._kernel: DirectoryBell | None = None
        self._stopped = False
        self.polls = True

    def listen(self) -> None:
        """Ask for the kernel's help."""
        with suppress(OSError):
            self._kernel = DirectoryBell(self._bell.set)
            self.polls = False

    def stop(self) -> None:
        """End soon."""
        self._stopped = True
        self._bell.set()

    def close(self) -> None:
        """Let go of the kernel's help."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()

    async def changes(self) -> AsyncIterator[f.FileChanges]:
        """First that it watches, then what changed each time; raises NotFound, Conflict when the tree is too large."""
        before = await self._files.run(self._look)
        yield f.FileChanges(changes=[], polled=self.polls)
        while await self._wait():
            began = asyncio.get_running_loop().time()
            try:
                after = await self._files.run(self._look)
            except Stopped:
                return
            if found := differences(before, after):
                yield f.FileChanges(changes=found, polled=self.polls)
            before = after
            await asyncio.sleep(REST_SHARE * (asyncio.get_running_loop().time() - began))

    async def _wait(self) -> bool:
        """Until something may have changed; whether there is still anybody who wants to know."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + (POLL_SECONDS if self.polls else HEAL_SECONDS)
        while self._alive() and not self._bell.is_set() and (left := deadline - clock()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), min(left, GLANCE_SECONDS))
        if self._bell.is_set() and not self._stopped:
            await asyncio.sleep(SETTLE_SECONDS)
        self._bell.clear()
        return not self._stopped and self._alive()

    def _look(self) -> dict[str, Look]:
        """Everything that is watched, by path below the tree's top."""
        found: dict[str, Look] = {}
        directories = 0
        with self._root.opened(self._asked.path) as top, telling(self._asked.path):
            if not stat.S_ISDIR(os.fstat(top).st_mode):
                self.polls = True  # it may be replaced by another of its name
                return {"": _seen(os.fstat(top))}
            self._listen(top)
            for step in walk(top, ".", lambda: self._stopped, enters=self._asked.recursive):
                if step.leaving or not step.path:
                    continue
                directories += self._note(step, found)
                if len(found) > MAX_ENTRIES or directories > MAX_DIRECTORIES:
                    raise Conflict(
                        f"path: more than {MAX_ENTRIES} files or {MAX_DIRECTORIES} directories are not watched at once"
                    )
        return found

    def _note(self, step: Step, found: dict[str, Look]) -> bool:
        """Look at one thing; whether it is a directory that is watched."""
        try:
            opened = os.open(step.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=step.directory)
        except FileNotFoundError:
            return False
        try:
            look = found[readable(step.path)] = _seen(os.fstat(opened))
            is_watched = look.kind == "directory" and self._asked.recursive
            if is_watched:
                self._listen(opened)
            return is_watched
        finally:
            os.close(opened)

    def _listen(self, directory: int) -> None:
        """Have the kernel tell; where it cannot, everything is polled from now on."""
        if self._kernel is None or self.polls:
            return
        try:
            self.polls = file_system_of(directory) in REMOTE
            self._kernel.watch(directory)
        except OSError:
            self.polls = True


@contextmanager
def watching(files: Files, watcher: Watcher) -> Iterator[Watcher]:
    """Let it watch for the block; raises TooMany."""
    if files.watchers >= MAX_WATCHERS:
        raise TooMany(f"{MAX_WATCHERS} are watching files here already")
    files.watchers += 1
    try:
        watcher.listen()
        yield watcher
    finally:
        files.watchers -= 1
        watcher.close()


def differences(before: Mapping[str, Look], after: Mapping[str, Look]) -> list[f.FileChange]:
    """What must have happened, by path; a thing that took another's place has changed."""
    changes = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was == now or (was and now and was.kind == now.kind == "directory" and was.inode == now.inode):
            continue
        what = f.Change.CREATED if was is None else f.Change.DELETED if now is None else f.Change.CHANGED
        seen = now or was
        assert seen is not None
        changes.append(f.FileChange(path=path, change=what, kind=f.Kind(seen.kind), size_bytes=seen.size))
    return changes


def _seen(status: os.stat_result) -> Look:
    return Look(kind_of(status.st_mode), status.st_size, max(status.st_mtime_ns, status.st_ctime_ns), status.st_ino)
