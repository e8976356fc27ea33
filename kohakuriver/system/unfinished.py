"""What is being written into roots, noted on disk: so that parts of files that a death left there are found and swept.

A note stands while somebody writes, and longer where he was cut off and may go on. When nobody has for an hour, the parts
that lie where it says are taken away.
"""

import asyncio
import json
import os
import posixpath
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.files import PART, part_name
from kohakuriver.system.clock import Clock
from kohakuriver.system.files import Files
from kohakuriver.system.rooted import Root, telling
from kohakuriver.system.rooted_tree import walk

KEPT_SECONDS, SWEEP_SECONDS = 3600.0, 600.0
IS_PART = re.compile(part_name("@").replace(".", r"\.").replace("@", PART))


@dataclass(frozen=True, slots=True)
class Note:
    """In which directory of which root somebody writes; `deep` when it is a whole tree."""

    place: str
    directory: str
    deep: bool = False


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The notes of one program, each in a file of its own."""

    notes: Path
    clock: Clock

    @asynccontextmanager
    async def noted(self, note: Note, goes_on: bool = False) -> AsyncIterator[None]:
        """Write within the block; whoever was cut off and `goes_on` leaves the note."""
        path = await asyncio.to_thread(self._write, note)
        is_over = not goes_on
        try:
            yield
            is_over = True
        finally:
            if is_over:
                path.unlink(missing_ok=True)

    def _write(self, note: Note) -> Path:
        self.notes.mkdir(mode=0o700, exist_ok=True)
        path = self.notes / secrets.token_hex(8)
        path.write_text(json.dumps(asdict(note)))
        return path

    async def sweep(self, files: Files, open_root: Callable[[str], AbstractAsyncContextManager[Root]]) -> None:
        """Take away what nobody goes on with; a root that cannot be opened now is looked at again."""
        before = self.clock.now() - KEPT_SECONDS
        for path, note in await asyncio.to_thread(self._older_than, before):
            with suppress(RiverError):
                if not await self._parts_left(files, open_root, note, before):
                    path.unlink(missing_ok=True)

    def _older_than(self, moment: float) -> list[tuple[Path, Note]]:
        found = []
        for path in self.notes.iterdir() if self.notes.is_dir() else ():
            with suppress(FileNotFoundError):  # its writer has come to the end
                if path.stat().st_mtime < moment:
                    found.append((path, _read(path)))
        return found

    async def _parts_left(
        self, files: Files, open_root: Callable[[str], AbstractAsyncContextManager[Root]], note: Note, before: float
    ) -> int:
        try:
            async with open_root(note.place) as root:
                return await files.run(lambda: sweep_parts(root, note, before))
        except NotFound:
            return 0  # what held them is gone


def _read(path: Path) -> Note:
    try:
        return Note(**json.loads(path.read_text()))
    except (ValueError, TypeError):  # cut off as it was written: nothing was begun yet
        return Note("", "")


def sweep_parts(root: Root, note: Note, before: float) -> int:
    """Take away the parts that nobody has written to since that moment (UTC unix seconds); how many others there are."""
    left = 0
    for name, touched_at in list(_parts(root, note)):
        if touched_at < before:
            root.delete(posixpath.join(note.directory, name))
        else:
            left += 1
    return left


def _parts(root: Root, note: Note) -> Iterator[tuple[str, float]]:
    """Path below the directory, and when it was last written."""
    with root.opened(note.directory) as top, telling(note.directory):
        for step in walk(top, ".", enters=note.deep):
            if not step.leaving and IS_PART.fullmatch(step.name):
                status = os.stat(step.name, dir_fd=step.directory, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield step.path, status.st_mtime
