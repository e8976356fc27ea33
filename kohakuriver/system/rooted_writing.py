"""A file of a root that is written beside its place and takes it when it is whole, so that nobody sees half of it.

What is written so far lies under a temporary name in the same directory. With a `part` (letters and digits) that name is
known to whoever began it, so that he can go on after a broken connection; without one it goes away with him.
"""

import os
import secrets
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.files import part_name
from kohakuriver.system.openat2 import begin_to_store, refuse_mount
from kohakuriver.system.rooted import Owner, Root, shown, telling

NEW_MODE = 0o644


class _Place(NamedTuple):
    """Where a file is to stand, and as whose."""

    directory: int
    name: str
    mode: int
    owner: Owner


@dataclass(slots=True)
class Writing:
    """A file being written; `finish` or `abandon` ends it. Blocks; `offset` is how much there is already."""

    _place: _Place
    _path: str
    _temporary: str
    _descriptor: int
    _keeps: bool
    offset: int

    @classmethod
    def begin(cls, root: Root, path: str, mode: int | None = None, part: str = "", offset: int = 0) -> Self:
        """Begin to write a file, or go on at `offset` with a `part`; what a link leads to is written, not the link.

        A file that is there keeps its owner, and its mode unless one is given; a new one gets the root's owner. Raises
        Conflict for what is no file, and (with the bytes there are as `details["offset"]`) when the part is shorter.
        """
        place = _place_of(root, path, mode)
        temporary = part_name(part or secrets.token_hex(8))
        with ExitStack() as undo:
            undo.callback(os.close, place.directory)
            writing = cls(place, path, temporary, _open_part(place, temporary, bool(part), path), bool(part), offset)
            undo.pop_all()
            undo.callback(writing.abandon)
            writing._go_on_at(offset)
            undo.pop_all()
        return writing

    def _go_on_at(self, offset: int) -> None:
        there = os.fstat(self._descriptor).st_size
        if there < offset:
            raise Conflict(f"offset: {shown(self._path)} has {there} bytes so far", {"offset": there})
        with telling(self._path):
            os.ftruncate(self._descriptor, offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        """Append; raises Conflict (with the system's reason) when it cannot be stored."""
        view = memoryview(data)
        with telling(self._path):
            while view:
                written = os.write(self._descriptor, view)
                begin_to_store(self._descriptor, self.offset, written)
                self.offset += written
                view = view[written:]

    def finish(self, durable: bool = True) -> None:
        """Put the file in its place, whole and (`durable`) on disk; raises as `write` does."""
        place = self._place
        with telling(self._path):
            os.fchown(self._descriptor, *place.owner)
            os.fchmod(self._descriptor, place.mode)
            if durable:
                os.fsync(self._descriptor)
            refuse_mount(place.directory, place.name)
            os.rename(self._temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
            if durable:
                with suppress(OSError):  # file systems without it keep the order by themselves
                    _sync_directory(place.directory)
        self._close()

    def abandon(self) -> None:
        """Leave the place as it was, unless it is finished; a named part stays for whoever goes on with it."""
        if not self._keeps and self._descriptor >= 0:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._place.directory)
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._place.directory)
            self._descriptor = -1


def _place_of(root: Root, path: str, mode: int | None) -> _Place:
    """The directory (opened) and name at which a path ends once its links are followed."""
    try:
        found = root.stat(path).status
    except NotFound:  # new, or a link to nothing: then the link makes way
        return _place_in(root, path, mode if mode is not None else NEW_MODE, root.owner)
    if not stat.S_ISREG(found.st_mode):
        raise Conflict(f"{shown(path)}: not a file")
    kept = stat.S_IMODE(found.st_mode) if mode is None else mode
    return _place_in(root, root.real_path(path), kept, Owner(found.st_uid, found.st_gid))


def _place_in(root: Root, path: str, mode: int, owner: Owner) -> _Place:
    with root.parent(path) as (directory, name):
        return _Place(os.dup(directory), name, mode & 0o777, owner)


def _open_part(place: _Place, temporary: str, may_exist: bool, path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with telling(path):
        made = os.open(temporary, flags | (0 if may_exist else os.O_EXCL), 0o600, dir_fd=place.directory)
    status = os.fstat(made)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return made
    os.close(made)
    raise Conflict(f"{shown(path)}: something else has the name of its part")


def _sync_directory(directory: int) -> None:
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
