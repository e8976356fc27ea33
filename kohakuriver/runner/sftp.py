"""SFTP on the files of a workload: packets in, packets out; everything here blocks.

Version 3 (draft-ietf-secsh-filexfer-02) with the extensions of OpenSSH that its clients look for (PROTOCOL, section 4).
"""

import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed, NotFound, RiverError
from kohakuriver.runner import sftp_packets as wire
from kohakuriver.runner.sftp_packets import Kind, NotAPacket, Packet, Status
from kohakuriver.system.rooted import Entry, Owner, Root

VERSION = 3
MOST_HANDLES = 128
MOST_PACKET_BYTES = 256 * 1024 + 1024
MOST_DATA_BYTES = 256 * 1024 - 1024  # of one read or write, so that a frame of the wire holds it
ENOUGH_BYTES = 512 * 1024
PAGE = 1000
NAMES_AT_ONCE = 100
EXTENSIONS = (
    (b"posix-rename@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"expand-path@openssh.com", b"1"),
)
_FLAGS = {8: os.O_CREAT, 16: os.O_TRUNC, 4: os.O_APPEND}
_EXCLUSIVE = 32


@dataclass(slots=True)
class _Directory:
    """A directory that is being listed: where we are in it."""

    path: str
    after: str = ""
    ready: list[Entry] = field(default_factory=list)
    more: bool = True


class Sftp:
    """One session; `home` is where paths begin that do not begin at the root. Takes the root over."""

    def __init__(self, root: Root, home: str) -> None:
        self._root, self._home = root, home
        self._handles: dict[bytes, int | _Directory] = {}
        self._made, self._rest = 0, b""
        self._waiting: deque[bytes] = deque()
        self._answers: dict[int, Callable[[Packet], bytes]] = {
            Kind.OPEN: self._open,
            Kind.CLOSE: self._close,
            Kind.READ: self._read,
            Kind.WRITE: self._write,
            Kind.LSTAT: lambda asked: self._stat(asked, follow=False),
            Kind.FSTAT: lambda asked: wire.attributes(os.fstat(self._file(asked))),
            Kind.SETSTAT: self._change,
            Kind.FSETSTAT: self._change_open,
            Kind.OPENDIR: self._open_directory,
            Kind.READDIR: self._read_directory,
            Kind.REMOVE: self._remove,
            Kind.MKDIR: self._make_directory,
            Kind.RMDIR: self._remove_directory,
            Kind.REALPATH: self._real_path,
            Kind.STAT: lambda asked: self._stat(asked, follow=True),
            Kind.RENAME: lambda asked: self._rename(asked, replace=False),
            Kind.READLINK: lambda asked: wire.names([wire.Name(self._root.read_link(self._path(asked)))]),
            Kind.SYMLINK: self._make_link,
            Kind.EXTENDED: self._extended,
        }

    def take(self, data: bytes) -> None:
        """Requests, in any cuts; raises NotAPacket for what is none."""
        whole, self._rest = wire.split(self._rest + data, MOST_PACKET_BYTES)
        self._waiting += whole

    def answer_some(self) -> bytes:
        """The answers to the next requests, about `ENOUGH_BYTES`; nothing when all are answered."""
        answers, total = [], 0
        while self._waiting and total < ENOUGH_BYTES:
            answers.append(wire.framed(self._answer(self._waiting.popleft())))
            total += len(answers[-1])
        return b"".join(answers)

    def close(self) -> None:
        """Let go of everything."""
        for handle in list(self._handles):
            self._let_go(handle)
        self._root.close()

    def _answer(self, packet: bytes) -> bytes:
        kind, asked = packet[0], Packet(packet[1:])
        if kind == Kind.INIT:
            return wire.version(VERSION, EXTENSIONS)
        number = asked.number()
        try:
            answer = self._answers[kind](asked) if kind in self._answers else wire.status(Status.UNSUPPORTED)
        except (RiverError, OSError) as refused:
            answer = wire.status(_status_of(refused), str(refused))
        return answer[:1] + number.to_bytes(4, "big") + answer[1:]

    # ---- paths

    def _path(self, asked: Packet) -> str:
        return posixpath.join(self._home, os.fsdecode(asked.string()))

    def _real_path(self, asked: Packet) -> bytes:
        path = self._path(asked)
        try:
            return wire.names([wire.Name(self._root.real_path(path))])
        except RiverError:  # it may be about to be made
            return wire.names([wire.Name(posixpath.normpath(path))])

    def _stat(self, asked: Packet, follow: bool) -> bytes:
        return wire.attributes(self._root.stat(self._path(asked), follow).status)

    def _change(self, asked: Packet) -> bytes:
        path, wanted = self._path(asked), asked.attributes()
        if wanted.size is not None:
            self._truncate(path, wanted.size)
        if wanted.owner or wanted.mode is not None or wanted.times:
            owner = Owner(*wanted.owner) if wanted.owner else None
            self._root.change(path, mode=wanted.mode, owner=owner, times=wanted.times)
        return wire.status(Status.OK)

    def _truncate(self, path: str, size: int) -> None:
        file = self._root.open_file(path, os.O_WRONLY)
        try:
            os.ftruncate(file, size)
        finally:
            os.close(file)

    def _remove(self, asked: Packet) -> bytes:
        path = self._path(asked)
        if _is_directory(self._root.stat(path, follow=False)):
            raise Conflict("it is a directory")
        self._root.delete(path)
        return wire.status(Status.OK)

    def _remove_directory(self, asked: Packet) -> bytes:
        path = self._path(asked)
        if not _is_directory(self._root.stat(path, follow=False)):
            raise Conflict("it is no directory")
        self._root.delete(path)
        return wire.status(Status.OK)

    def _make_directory(self, asked: Packet) -> bytes:
        path, mode = self._path(asked), asked.attributes().mode
        self._root.make_directory(path, mode=0o755 if mode is None else mode)
        return wire.status(Status.OK)

    def _rename(self, asked: Packet, replace: bool) -> bytes:
        self._root.rename(self._path(asked), self._path(asked), replace)
        return wire.status(Status.OK)

    def _make_link(self, asked: Packet) -> bytes:
        target = os.fsdecode(asked.string())  # OpenSSH sends them the other way round than the draft says
        self._root.make_link(self._path(asked), target)
        return wire.status(Status.OK)

    # ---- open files

    def _keep(self, opened: int | _Directory) -> bytes:
        self._made += 1
        handle = self._made.to_bytes(8, "big")
        self._handles[handle] = opened
        return wire.handle(handle)

    def _must_have_room(self) -> None:
        if len(self._handles) >= MOST_HANDLES:
            raise Conflict("too many files are open")

    def _let_go(self, handle: bytes) -> None:
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise BadRequest("no such handle")
        if isinstance(opened, int):
            os.close(opened)

    def _file(self, asked: Packet) -> int:
        opened = self._handles.get(asked.string())
        if not isinstance(opened, int):
            raise BadRequest("no such handle")
        return opened

    def _open(self, asked: Packet) -> bytes:
        self._must_have_room()
        path, wanted, given = self._path(asked), asked.number(), asked.attributes()
        flags = {1: os.O_RDONLY, 2: os.O_WRONLY, 3: os.O_RDWR}.get(wanted & 3)
        if flags is None:
            raise BadRequest("open for what?")
        for bit, flag in _FLAGS.items():
            flags |= flag if wanted & bit else 0
        if wanted & _EXCLUSIVE and flags & os.O_CREAT:
            flags |= os.O_EXCL
        return self._keep(self._root.open_file(path, flags, 0o644 if given.mode is None else given.mode))

    def _close(self, asked: Packet) -> bytes:
        self._let_go(asked.string())
        return wire.status(Status.OK)

    def _read(self, asked: Packet) -> bytes:
        file, offset, length = self._file(asked), asked.long_number(), asked.number()
        data = os.pread(file, min(length, MOST_DATA_BYTES), offset)
        return wire.data(data) if data else wire.status(Status.EOF)

    def _write(self, asked: Packet) -> bytes:
        file, offset, rest = self._file(asked), asked.long_number(), memoryview(asked.string())
        while rest:
            done = os.pwrite(file, rest, offset)
            rest, offset = rest[done:], offset + done
        return wire.status(Status.OK)

    def _change_open(self, asked: Packet) -> bytes:
        file, wanted = self._file(asked), asked.attributes()
        if wanted.size is not None:
            os.ftruncate(file, wanted.size)
        if wanted.owner:
            os.fchown(file, *wanted.owner)
        if wanted.mode is not None:
            os.fchmod(file, wanted.mode & 0o7777)
        if wanted.times:
            os.utime(file, wanted.times)
        return wire.status(Status.OK)

    def _open_directory(self, asked: Packet) -> bytes:
        self._must_have_room()
        path = self._path(asked)
        page = self._root.list(path, "", PAGE)
        return self._keep(_Directory(path, page.entries[-1].name if page.entries else "", page.entries, page.more))

    def _read_directory(self, asked: Packet) -> bytes:
        listed = self._handles.get(asked.string())
        if not isinstance(listed, _Directory):
            raise BadRequest("no such handle")
        if not listed.ready and listed.more:
            page = self._root.list(listed.path, listed.after, PAGE)
            listed.ready, listed.more = page.entries, page.more
            listed.after = page.entries[-1].name if page.entries else ""
        if not listed.ready:
            return wire.status(Status.EOF)
        now, listed.ready = listed.ready[:NAMES_AT_ONCE], listed.ready[NAMES_AT_ONCE:]
        return wire.names([wire.Name(entry.name, entry.status) for entry in now])

    # ---- extensions

    def _extended(self, asked: Packet) -> bytes:
        name = asked.string()
        if name == b"posix-rename@openssh.com":
            return self._rename(asked, replace=True)
        if name == b"fsync@openssh.com":
            os.fsync(self._file(asked))
            return wire.status(Status.OK)
        if name == b"limits@openssh.com":
            return wire.limits(MOST_PACKET_BYTES, MOST_DATA_BYTES, MOST_HANDLES)
        if name == b"expand-path@openssh.com":
            return self._expanded(os.fsdecode(asked.string()))
        return wire.status(Status.UNSUPPORTED)

    def _expanded(self, path: str) -> bytes:
        first, _, rest = path.partition("/")
        if first == "~":
            path = posixpath.join(self._home, rest)
        elif first.startswith("~"):
            path = posixpath.join(find_user(self._root, first[1:]).home, rest)
        return wire.names([wire.Name(posixpath.normpath(posixpath.join(self._home, path)))])


@dataclass(frozen=True, slots=True)
class User:
    """A line of `/etc/passwd`."""

    owner: Owner
    home: str


def find_user(root: Root, name: str) -> User:
    """Somebody whom the workload knows; root is always known. Raises NotFound."""
    for known, user in _users(root):
        if known == name:
            return user
    if name == "root":
        return User(Owner(0, 0), "/root")
    raise NotFound(f"there is no user {name[:70]} in the workload")


def find_owner(root: Root) -> User:
    """Whom the workload runs as, who may be nobody whom it knows."""
    for _, user in _users(root):
        if user.owner.uid == root.owner.uid:
            return User(root.owner, user.home)
    return User(root.owner, "/root" if root.owner.uid == 0 else "/")


def _users(root: Root) -> Iterator[tuple[str, User]]:
    """Who is in `/etc/passwd` (passwd(5)), by name."""
    for line in _passwd(root).splitlines():
        parts = line.split(":")
        if len(parts) >= 6 and parts[2].isdigit() and parts[3].isdigit():
            yield parts[0], User(Owner(int(parts[2]), int(parts[3])), parts[5] or "/")


def home_of(root: Root, user: User) -> str:
    """Where somebody begins: his home, if it is there."""
    with suppress(RiverError):
        if _is_directory(root.stat(user.home)):
            return user.home
    return "/"


def _passwd(root: Root) -> str:
    try:
        file = root.open_file("/etc/passwd")
    except RiverError:
        return ""
    try:
        return os.pread(file, 1 << 20, 0).decode("utf-8", "replace")
    finally:
        os.close(file)


def _is_directory(entry: Entry) -> bool:
    return entry.status.st_mode & 0o170000 == 0o040000


def _status_of(refused: RiverError | OSError) -> Status:
    if isinstance(refused, NotAPacket):
        return Status.BAD_MESSAGE
    if isinstance(refused, (NotFound, FileNotFoundError)):
        return Status.NO_SUCH_FILE
    return Status.DENIED if isinstance(refused, (NotAllowed, PermissionError)) else Status.FAILURE
