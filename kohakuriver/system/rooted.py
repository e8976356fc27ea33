"""Files below a root that nothing leads out of: the kernel resolves every path as if the root were all there is.

Links and `..` stay inside, whoever changes the tree meanwhile, and mounts inside are part of it. `/proc`, `/sys` and
`/dev` are refused by what was reached, not by what was written. Only regular files are opened: a pipe that nobody
writes to, or a device, is looked at and never touched. Everything here blocks; names that are not UTF-8 are `str` with
surrogates, as `os.fsdecode` makes them.
"""

import errno
import heapq
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed, NotFound, RiverError
from kohakuriver.system.openat2 import (
    BENEATH,
    IN_ROOT,
    NO_MAGICLINKS,
    file_system_of,
    openat2,
    refuse_mount,
    sync_file_system,
)
from kohakuriver.system.rooted_tree import Stop, never, remove_tree

MAX_PATH_BYTES = 4095
PAGE_ENTRIES = 1000
KERNEL_DIRECTORIES = ("proc", "sys", "dev")
# File systems whose files are the kernel's own doors (linux/magic.h).
KERNEL_FILE_SYSTEMS = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x1CD1: "devpts",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0xCAFE4A11: "bpf",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x6E736673: "nsfs",
    0x19800202: "mqueue",
    0x42494E4D: "binfmt_misc",
    0x65735543: "fusectl",
    0xF97CFF8C: "selinux",
}
_LOOK = os.O_PATH | os.O_NOFOLLOW
_WORDS = {
    errno.ENOENT: (NotFound, "there is no such file or directory"),
    errno.ENOTDIR: (Conflict, "not a directory"),
    errno.EISDIR: (Conflict, "a directory"),
    errno.EEXIST: (Conflict, "it exists already"),
    errno.ENOTEMPTY: (Conflict, "the directory is not empty"),
    errno.ELOOP: (Conflict, "its links lead in a circle, or to where nobody may follow"),
    errno.EXDEV: (Conflict, "that leads to another file system, or out of the tree"),
    errno.EBUSY: (Conflict, "something is mounted there"),
    errno.EROFS: (NotAllowed, "that is mounted read-only"),
    errno.EACCES: (NotAllowed, "that is not permitted"),
    errno.EPERM: (NotAllowed, "that is not permitted"),
    errno.EAGAIN: (Conflict, "it changes too quickly to be reached"),
    errno.ENAMETOOLONG: (BadRequest, "a name in it is too long"),
    errno.EINVAL: (BadRequest, "that cannot be done with it"),
}


class Owner(NamedTuple):
    """Who gets what is made."""

    uid: int = 0
    gid: int = 0


ROOT_USER = Owner()


class Entry(NamedTuple):
    """One thing in a directory, itself and not what it may lead to; `target` is where a link leads."""

    name: str
    status: os.stat_result
    target: str = ""


class Page(NamedTuple):
    """Entries by name, and whether there are more behind them."""

    entries: list[Entry]
    more: bool


@contextmanager
def telling(path: str) -> Iterator[None]:
    """What the kernel refuses becomes an error that names the path: NotFound, NotAllowed, Conflict or BadRequest."""
    try:
        yield
    except OSError as refused:
        kind, words = _WORDS.get(refused.errno or 0, (Conflict, refused.strerror or "it failed"))
        raise kind(f"{shown(path)}: {words}") from refused


def shown(path: str) -> str:
    """A path as it can stand in a message."""
    return path.encode("utf-8", "backslashreplace").decode()[:300] or "/"


def readable(name: str) -> str:
    """A name as text; bytes that are not UTF-8 are U+FFFD."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "replace")


class Root:
    """The tree below one open directory; takes the descriptor over, and makes what is new belong to `owner`.

    It is a system's root (in which `/proc`, `/sys` and `/dev` are the kernel's), or a `plain` directory.
    """

    def __init__(self, descriptor: int, owner: Owner = ROOT_USER, plain: bool = False) -> None:
        self.descriptor, self.owner, self.plain = descriptor, owner, plain
        self._at = self._whole = _place_of(descriptor)  # where this root is, and where the root of all is
        self._resolve = IN_ROOT | NO_MAGICLINKS

    @classmethod
    def at(cls, directory: str | Path, owner: Owner = ROOT_USER, plain: bool = False) -> Self:
        """The tree below a directory of this machine; raises NotFound."""
        with telling(str(directory)):
            return cls(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), owner, plain)

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """What a process sees as `/`, its mounts included; what is new there belongs to its user. Raises NotFound."""
        with telling(f"the files of process {pid}"):
            return cls(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), _owner_of(pid))

    def below(self, path: str) -> "Root":
        """A directory as a root of its own, out of which a link is an error; its paths begin there. Raises NotFound."""
        with self.opened(path, os.O_PATH | os.O_DIRECTORY) as directory:
            made = Root(os.dup(directory), self.owner, self.plain)
        made._whole, made._resolve = self._whole, BENEATH | NO_MAGICLINKS
        return made

    def close(self) -> None:
        """Let go of it; the files stay."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        """Nobody may have taken it: whoever waited for it was cancelled."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- looking

    def stat(self, path: str, follow: bool = True) -> Entry:
        """What is there, or with `follow` what it leads to; raises NotFound."""
        with self.opened(path, os.O_PATH if follow else _LOOK) as found:
            status = os.fstat(found)
            target = os.readlink("", dir_fd=found) if stat.S_ISLNK(status.st_mode) else ""
            return Entry(posixpath.basename(path.rstrip("/")) or "/", status, target)

    def list(self, path: str, after: str = "", limit: int = PAGE_ENTRIES) -> Page:
        """The entries of a directory by readable name, from the first behind `after`; raises NotFound, Conflict."""
        with self.opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            with os.scandir(directory) as found:
                behind = (each.name for each in found if readable(each.name) > after)
                names = heapq.nsmallest(limit + 1, behind, key=readable)
            return Page([entry for name in names[:limit] for entry in _look_at(directory, name)], len(names) > limit)

    def real_path(self, path: str) -> str:
        """The path without links; raises NotFound."""
        with self.opened(path) as found:
            return _place_of(found)[len(self._at) :] or "/"

    def read_link(self, path: str) -> str:
        """Where a link leads, as it is written; raises Conflict for what is none."""
        with telling(path), self.opened(path, _LOOK) as found:
            return os.readlink("", dir_fd=found)

    # ---- files

    def open_file(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """A descriptor of a regular file, made if `flags` have O_CREAT; never waits for a pipe, never opens a device.

        Raises NotFound, Conflict (not a regular file, or O_EXCL and it is there).
        """
        if flags & os.O_CREAT:
            with suppress(NotFound):
                return self._open_there(path, flags)
            return self._make_file(path, flags, mode)
        return self._open_there(path, flags)

    def _open_there(self, path: str, flags: int) -> int:
        with self.opened(path) as found, telling(path):
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "")
            _must_be_file(found, path)
            return os.open(f"/proc/self/fd/{found}", flags & ~os.O_CREAT | os.O_CLOEXEC)

    def _make_file(self, path: str, flags: int, mode: int) -> int:
        with self.parent(path) as (directory, name), telling(path):
            made = os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o777, dir_fd=directory)
            os.fchmod(made, mode & 0o777)
            os.fchown(made, *self.owner)
            return made

    # ---- changing

    def make_directory(self, path: str, parents: bool = False, mode: int = 0o755) -> None:
        """Make a directory; with `parents` also those above it, and one that is there already is no error."""
        if not parents:
            return self._make_directory(path, mode)
        at = ""
        for name in path.split("/"):
            at += f"/{name}"
            if name in ("", ".", ".."):
                continue
            try:
                self._make_directory(at, mode)
            except Conflict:
                with self.opened(at, os.O_PATH | os.O_DIRECTORY):  # a link to a directory is one, too
                    pass

    def _make_directory(self, path: str, mode: int) -> None:
        with self.parent(path) as (directory, name), telling(path):
            os.mkdir(name, mode & 0o777, dir_fd=directory)
            with suppress(OSError):  # it was changed meanwhile
                os.chown(name, *self.owner, dir_fd=directory, follow_symlinks=False)

    def rename(self, source: str, target: str, replace: bool = False) -> None:
        """Give it another name in the same file system; raises Conflict when that is taken, unless it may `replace`."""
        with self.parent(source) as (old, old_name), self.parent(target) as (new, new_name):
            if not replace and _exists(new, new_name):
                raise Conflict(f"{shown(target)}: it exists already")
            with telling(source):
                refuse_mount(old, old_name)
                refuse_mount(new, new_name)
                os.rename(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)

    def delete(self, path: str, recursive: bool = False, stop: Stop = never) -> int:
        """Take away a file, a link (not what it leads to) or an empty directory; `recursive`: with all that is in it.

        Returns how many things that were.
        """
        with self.parent(path) as (directory, name), telling(path):
            refuse_mount(directory, name)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=directory)
            elif recursive:
                return remove_tree(directory, name, stop)
            else:
                os.rmdir(name, dir_fd=directory)
            return 1

    def make_link(self, path: str, target: str) -> None:
        """Make a symbolic link; where it leads is not looked at, for nothing here is led out by it."""
        with self.parent(path) as (directory, name), telling(path):
            os.symlink(target, name, dir_fd=directory)
            os.chown(name, *self.owner, dir_fd=directory, follow_symlinks=False)

    def make_hard_link(self, path: str, existing: str) -> None:
        """Give a file one more name; raises NotFound, Conflict."""
        with self.parent(existing) as (old, old_name), self.parent(path) as (new, new_name), telling(existing):
            os.link(old_name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def change(
        self,
        path: str,
        *,
        mode: int | None = None,
        owner: Owner | None = None,
        times: tuple[float, float] | None = None,
    ) -> None:
        """Set the mode, the owner, or the times (last access and change, unix seconds) of a file or directory."""
        with self.opened(path) as found, telling(path):
            there = f"/proc/self/fd/{found}"
            if owner is not None:
                os.chown(there, *owner)
            if mode is not None:
                os.chmod(there, mode & 0o7777)
            if times is not None:
                os.utime(there, times)

    def sync(self) -> None:
        """Return when all that was written to the file system of the root is on disk."""
        with telling("/"):
            sync_file_system(self.descriptor)

    # ---- the way to it

    @contextmanager
    def opened(self, path: str, flags: int = os.O_PATH) -> Iterator[int]:
        """A descriptor of what is at a path, for the block; raises NotAllowed for what is the kernel's."""
        wanted = checked(path)
        if self._resolve & BENEATH:
            wanted = wanted.lstrip("/") or "."
        with telling(path):
            found = openat2(self.descriptor, wanted, flags, self._resolve)
        try:
            with telling(path):
                self._refuse_kernel(found)
            yield found
        finally:
            os.close(found)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The open directory that something is in or will be in, and its name there, for the block."""
        above, name = posixpath.split(checked(path).rstrip("/"))
        if name in ("", ".", ".."):
            raise BadRequest(f"path: {shown(path)} does not end in a name")
        with self.opened(above or "/", os.O_PATH | os.O_DIRECTORY) as directory:
            if name in KERNEL_DIRECTORIES and not self.plain and self._path_of(directory) == "/":
                raise _kernels_own(path)
            yield directory, name

    def _refuse_kernel(self, found: int) -> None:
        path = "/" if self.plain else self._path_of(found)
        if path.split("/", 2)[1] in KERNEL_DIRECTORIES or file_system_of(found) in KERNEL_FILE_SYSTEMS:
            raise _kernels_own(path)

    def _path_of(self, found: int) -> str:
        return _place_of(found)[len(self._whole) :] or "/"


def _place_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}").rstrip("/")


def checked(path: str) -> str:
    """A path that can be asked for; empty means the root. Raises BadRequest."""
    try:
        if "\0" not in path and len(os.fsencode(path)) <= MAX_PATH_BYTES:
            return path or "/"
    except UnicodeEncodeError:  # halves of characters
        pass
    raise BadRequest(f"path: not a path of at most {MAX_PATH_BYTES} bytes")


def kind_of(mode: int) -> str:
    """`file`, `directory`, `link`, `pipe`, `socket` or `device`."""
    known = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return known.get(stat.S_IFMT(mode)) or {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}.get(
        stat.S_IFMT(mode), "device"
    )


def _must_be_file(found: int, path: str) -> None:
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        raise Conflict(f"{shown(path)}: a {kind_of(mode)}, not a file")


def _look_at(directory: int, name: str) -> Iterator[Entry]:
    with suppress(FileNotFoundError):  # it went away meanwhile
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            with suppress(OSError):
                target = os.readlink(name, dir_fd=directory)
        yield Entry(name, status, target)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _kernels_own(path: str) -> RiverError:
    return NotAllowed(f"{shown(path)}: /proc, /sys and /dev are not files of the workload")


def _owner_of(pid: int) -> Owner:
    """The effective user and group of a process, as this machine numbers them."""
    ids = {}
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Uid", "Gid"):
                ids[name] = int(rest.split()[1])
    return Owner(ids["Uid"], ids["Gid"])
