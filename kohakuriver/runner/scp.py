"""The other end of `scp -O` (and of scp before OpenSSH 9) where the image has no scp; sans-IO but for the files.

The protocol is that of rcp: lines `Cmode size name`, `Dmode 0 name`, `E`, `Tmtime 0 atime 0`, each answered with a zero
byte, or with 1 (an error) or 2 (the end) and a line that tells. Everything here that touches files blocks.
"""

import fnmatch
import os
import posixpath
import re
import shlex
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.model.errors import RiverError
from kohakuriver.system.rooted import Root, shown

OK, NO, STOP = b"\0", b"\1", b"\2"
LINE = 0  # wanted of the other side: all up to the end of a line; else it is so many bytes at the most
MOST_LINE_BYTES = 8192
BLOCK_BYTES, ENOUGH_BYTES = 128 * 1024, 512 * 1024
MOST_DEPTH = 64
PLACES = ("/usr/local/sbin/scp", "/usr/local/bin/scp", "/usr/sbin/scp", "/usr/bin/scp", "/sbin/scp", "/bin/scp")
SHELL = re.compile(r"[;|&<>`$()\n]")  # what only a shell understands
WILD = re.compile(r"[*?\[]")
_ENTRY = re.compile(rb"([CD])([0-7]{4,5}) ([0-9]{1,18}) ([^/]+)")
_TIMES = re.compile(rb"T([0-9]{1,12}) [0-9]{1,6} ([0-9]{1,12}) [0-9]{1,6}")
Talk = Generator[bytes | int, bytes, None]  # gives what to say, or how much it wants to hear
Hears = Generator[bytes | int, bytes, bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client's scp asks of ours."""

    is_source: bool
    recursive: bool
    preserve: bool
    into_directory: bool
    paths: tuple[str, ...]


def parse(command: str) -> Asked | None:
    """The command as scp sends it; None for anything else, which is the shell's."""
    with suppress(ValueError):
        words = shlex.split(command)
        flags = "".join(word[1:] for word in words[1:] if word.startswith("-") and word != "--")
        paths = tuple(word for word in words[1:] if not word.startswith("-"))
        is_scp = (
            words[:1] == ["scp"]
            and not SHELL.search(command)
            and set(flags) <= set("rpdvqtf")
            and ("t" in flags) != ("f" in flags)
        )
        if is_scp and paths and ("f" in flags or len(paths) == 1):
            return Asked("f" in flags, "r" in flags, "p" in flags, "d" in flags, paths)
    return None


def is_there(root: Root) -> bool:
    """Whether the workload has an scp of its own."""
    for place in PLACES:
        with suppress(RiverError):
            root.stat(place)
            return True
    return False


class Ended(Exception):
    """The other side has gone, or the two do not understand each other; the message is told to it, if there is any."""


class Scp:
    """One copy; `code` is its exit code, once it is over. Takes the root over."""

    def __init__(self, root: Root, home: str, asked: Asked) -> None:
        self._root, self._home, self._asked = root, home, asked
        self._heard, self._heard_all, self._failed = bytearray(), False, False
        self._talk = self._give() if asked.is_source else self._take()
        self._wants: bytes | int | None = None
        self.code: int | None = None

    def take(self, data: bytes) -> None:
        """What the other side says; empty at its end."""
        self._heard += data
        self._heard_all = self._heard_all or not data

    def answer_some(self) -> bytes:
        """What to say to it next, about `ENOUGH_BYTES`; nothing when it must say more first, or when it is over."""
        said = bytearray()
        while self.code is None and len(said) < ENOUGH_BYTES:
            if isinstance(self._wants, bytes):
                said += self._wants
                self._go_on(b"", said)
            elif self._wants is None:
                self._go_on(None, said)
            elif (heard := self._next(self._wants)) is not None:
                self._go_on(heard, said)
            else:
                break
        return bytes(said)

    def close(self) -> None:
        """Let go of everything."""
        self._talk.close()
        self._root.close()

    def _go_on(self, heard: bytes | None, said: bytearray) -> None:
        try:
            self._wants = next(self._talk) if heard is None else self._talk.send(heard)
        except StopIteration:
            self.code = int(self._failed)
        except Ended as ended:
            said += STOP + _told(str(ended)) if str(ended) else b""
            self.code = 1

    def _next(self, wanted: int) -> bytes | None:
        """So much of what was heard, or nothing at its end; None when it has not come yet."""
        if wanted == LINE:
            end = self._heard.find(b"\n") + 1
            if not end and len(self._heard) > MOST_LINE_BYTES:
                end = len(self._heard)  # it is no line, and nobody takes it for one
            wanted = end if end or not self._heard_all else len(self._heard)
        data = bytes(self._heard[:wanted])
        del self._heard[: len(data)]
        return data if data or self._heard_all else None

    def _path(self, path: str) -> str:
        first, _, rest = path.partition("/")
        return posixpath.join(self._home, rest if first == "~" else path)

    def _refuse(self, error: Exception) -> bytes:
        self._failed = True
        return NO + _told(str(error))

    def _hears_ok(self) -> Hears:
        """Whether the other side agrees."""
        answer = yield 1
        if answer == OK:
            return True
        if answer == NO:
            yield LINE
            self._failed = True
            return False
        raise Ended("" if answer in (b"", STOP) else "protocol error: expected an answer")

    # ---- from there to here

    def _take(self) -> Talk:
        target = self._path(self._asked.paths[0])
        if self._asked.into_directory and not self._is_directory(target):
            raise Ended(f"{shown(target)}: not a directory")
        yield OK
        yield from self._take_into(target, 0)

    def _take_into(self, target: str, depth: int) -> Talk:
        times: tuple[float, float] | None = None
        while line := (yield LINE):
            if line[:1] in (NO, STOP):
                self._failed = True
                if line[:1] == STOP:
                    raise Ended
            elif line == b"E\n" and depth:
                yield OK
                return
            elif found := _TIMES.fullmatch(line[:-1]):
                times = (float(found[2]), float(found[1]))
                yield OK
            else:
                yield from self._take_entry(target, line, times, depth)
                times = None
        if depth:
            raise Ended

    def _take_entry(self, target: str, line: bytes, times: tuple[float, float] | None, depth: int) -> Talk:
        found = _ENTRY.fullmatch(line[:-1])
        if found is None or found[4] in (b".", b"..") or depth > MOST_DEPTH:
            raise Ended(f"protocol error: {line[:60]!r}")
        is_directory, mode, size = found[1] == b"D", int(found[2], 8), int(found[3])
        into = self._is_directory(target)
        path = posixpath.join(target, os.fsdecode(found[4])) if into else target
        if is_directory:
            if not self._asked.recursive:
                raise Ended("received a directory without -r")
            yield from self._take_directory(path, mode, depth)
        else:
            yield from self._take_file(path, mode, size)
        if self._asked.preserve:
            with suppress(RiverError):  # it is told already that it is not there
                self._root.change(path, mode=mode, times=times)

    def _take_directory(self, path: str, mode: int, depth: int) -> Talk:
        try:
            if not self._is_directory(path):
                self._root.make_directory(path, mode=mode | 0o700)
        except RiverError as refused:
            yield self._refuse(refused)
            return
        yield OK
        yield from self._take_into(path, depth + 1)

    def _take_file(self, path: str, mode: int, size: int) -> Talk:
        try:
            file = self._root.open_file(path, os.O_WRONLY | os.O_CREAT, mode)
        except RiverError as refused:
            yield self._refuse(refused)
            return
        try:
            yield OK
            broken: OSError | None = None
            left = size
            while left:
                data = yield min(left, BLOCK_BYTES)
                if not data:
                    raise Ended
                left -= len(data)
                broken = broken or _tried(lambda data=data: _write_all(file, data))  # type: ignore[misc]
            broken = broken or _tried(lambda: os.ftruncate(file, size))
            yield from self._hears_ok()
            yield self._refuse(broken) if broken else OK
        finally:
            os.close(file)

    # ---- from here to there

    def _give(self) -> Talk:
        if not (yield from self._hears_ok()):
            return
        for path in self._asked.paths:
            for found in self._meant(self._path(path)):
                yield from self._give_entry(found, 0)

    def _meant(self, path: str) -> Iterator[str]:
        """What a path with wildcards means, as a shell would find; itself when it means nothing."""
        found = [""]
        for part in path.split("/")[1:]:
            found = [f"{before}/{name}" for before in found for name in self._names(before, part)]
        yield from found or [path]

    def _names(self, directory: str, part: str) -> list[str]:
        if not WILD.search(part):
            return [part]
        names: list[str] = []
        with suppress(RiverError):
            names = [each for each in self._all_in(directory or "/") if fnmatch.fnmatchcase(each, part)]
        return [name for name in names if part.startswith(".") or not name.startswith(".")]

    def _all_in(self, directory: str) -> Iterator[str]:
        after, more = "", True
        while more:
            page = self._root.list(directory, after)
            yield from (entry.name for entry in page.entries)
            after, more = page.entries[-1].name if page.entries else "", page.more

    def _give_entry(self, path: str, depth: int) -> Talk:
        name = posixpath.basename(path.rstrip("/")) or "root"
        try:
            status = self._root.stat(path).status
            is_directory = stat.S_ISDIR(status.st_mode)
            if is_directory and not self._asked.recursive:
                raise IsADirectoryError(f"{shown(path)}: not a regular file")
            if "\n" in name or depth > MOST_DEPTH:
                raise ValueError(f"{shown(path)}: its name cannot be said, or it is too deep")
            file = -1 if is_directory else self._root.open_file(path)
        except (RiverError, OSError, ValueError) as refused:
            yield self._refuse(refused)
            return
        if self._asked.preserve:
            yield f"T{int(status.st_mtime)} 0 {int(status.st_atime)} 0\n".encode()
            if not (yield from self._hears_ok()):
                return
        head = f"{stat.S_IMODE(status.st_mode):04o} {0 if is_directory else status.st_size} ".encode()
        yield (b"D" if is_directory else b"C") + head + os.fsencode(name) + b"\n"
        if is_directory:
            yield from self._give_directory(path, depth)
        else:
            yield from self._give_file(path, file, status.st_size)

    def _give_directory(self, path: str, depth: int) -> Talk:
        if not (yield from self._hears_ok()):
            return
        for name in self._all_in(path):
            yield from self._give_entry(posixpath.join(path, name), depth + 1)
        yield b"E\n"
        yield from self._hears_ok()

    def _give_file(self, path: str, file: int, size: int) -> Talk:
        try:
            if not (yield from self._hears_ok()):
                return
            at = 0
            while at < size and (data := os.pread(file, min(BLOCK_BYTES, size - at), at)):
                at += len(data)
                yield data
            for short in range(at, size, BLOCK_BYTES):  # it became shorter, and the other side counts
                yield bytes(min(BLOCK_BYTES, size - short))
            yield OK if at == size else self._refuse(OSError(f"{shown(path)}: it became shorter while it was read"))
            yield from self._hears_ok()
        finally:
            os.close(file)

    def _is_directory(self, path: str) -> bool:
        with suppress(RiverError):
            return stat.S_ISDIR(self._root.stat(path).status.st_mode)
        return False


def _told(message: str) -> bytes:
    return f"scp: {message}".encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n"


def _tried(act: Callable[[], object]) -> OSError | None:
    try:
        act()
    except OSError as broken:
        return broken
    return None


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
