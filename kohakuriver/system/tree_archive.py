"""A directory of a root as a tar, and a tar as a directory of a root: nothing in either leads out of it.

A tree travels as names below its top. One that holds an absolute name, `..`, a link that leads out of the tree, a device
or a pipe is refused. Owners do not travel: what is unpacked belongs to whom the root says.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.model.errors import BadRequest, NotFound
from kohakuriver.system.rooted import KERNEL_DIRECTORIES, Root, shown, telling
from kohakuriver.system.rooted_tree import Step, Stop, never, walk
from kohakuriver.system.rooted_writing import Writing
from kohakuriver.system.tar_reader import Member, Read, members

CHUNK_BYTES = 1024 * 1024
GATHER_BYTES = 256 * 1024  # so many small files travel together
MAX_LINK_CHARACTERS = 4095


LeftOut = Callable[[str, str], None]  # the name of a link, and where it leads


@dataclass(slots=True)
class Tally:
    """How much of a tree has passed."""

    entries: int = 0
    bytes: int = 0


def pack(root: Root, path: str, stop: Stop = never, left_out: LeftOut | None = None) -> Generator[bytes, None, None]:
    """The tar of a directory, as it is read, in pieces of about a megabyte; pipes, sockets and devices are left out.

    With `left_out`, links that lead out of the tree are left out, too, and their names told.

    A file that shrinks meanwhile is filled up with zeros, one that grows is cut. Blocks; raises NotFound, Conflict.
    """
    with root.opened(path, os.O_PATH | os.O_DIRECTORY) as directory, telling(path):
        whole = not root.plain and root.real_path(path) == "/"
        gathered = bytearray()
        for step in walk(directory, ".", stop, leave_out=KERNEL_DIRECTORIES if whole else ()):
            if step.leaving or not step.path:
                continue
            if left_out and (target := _link_out(step)):
                left_out(step.path, target)
                continue
            for piece in _member(step):
                gathered += piece
                if len(gathered) >= GATHER_BYTES:
                    yield bytes(gathered)
                    gathered.clear()
        yield bytes(gathered) + bytes(2 * tarfile.BLOCKSIZE)


def _member(step: Step) -> Iterator[bytes]:
    try:
        found = os.open(step.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=step.directory)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(found)
        info = _info(step.path, status)
        if info.issym():
            info.linkname = os.readlink("", dir_fd=found)
        if info.type == tarfile.FIFOTYPE:
            return
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(found, info.size)
    finally:
        os.close(found)


def _link_out(step: Step) -> str:
    """Where a link leads that leads out of its tree; empty for everything else."""
    try:
        target = os.readlink(step.name, dir_fd=step.directory)
    except OSError:
        return ""
    return target if leads_out(step.path, target) else ""


def _info(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    info.mtime = status.st_mtime
    kinds = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
    info.type = kinds.get(stat.S_IFMT(status.st_mode), tarfile.FIFOTYPE)
    info.size = status.st_size if info.isreg() else 0
    return info


def _content(found: int, size: int) -> Iterator[bytes]:
    left = size
    with open(f"/proc/self/fd/{found}", "rb", buffering=0) as file:
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    while left:
        yield bytes(min(left, CHUNK_BYTES))
        left -= min(left, CHUNK_BYTES)
    yield bytes(-size % tarfile.BLOCKSIZE)


def unpack(root: Root, path: str, read: Read, tally: Tally, left_out: LeftOut | None = None) -> None:
    """Put what a tar holds into a directory, which is made if need be; files in the way are replaced, one by one.

    Blocks; raises BadRequest for a tar that is broken or would lead out, NotFound, Conflict, NotAllowed. What came
    before the trouble stays. With `left_out`, links that lead out are left out and told instead.
    """
    root.make_directory(path, parents=True)
    with root.below(path) as top:
        for member in members(read):
            name, link = inner_name(member.info.name), member.info.linkname
            if member.info.issym() and leads_out(name, link):
                if left_out is None:
                    raise BadRequest(f"body: {shown(name)}: a link that leads out of the tree ({shown(link)})")
                left_out(name, link)
            elif name:
                _place(top, name, member)
                tally.entries += 1
                tally.bytes += member.size
        top.sync()


def _place(top: Root, name: str, member: Member) -> None:
    info = member.info
    if info.isdir():
        return _make_directory(top, name, info.mode)
    if "/" in name:
        top.make_directory(name.rpartition("/")[0], parents=True)
    if info.isreg():
        _clear(top, name, links_only=True)
        return _write(top, name, member)
    if info.issym():
        _clear(top, name)
        return top.make_link(name, info.linkname)
    if info.islnk():
        other = inner_name(info.linkname)
        if other != name:
            _clear(top, name)
            top.make_hard_link(name, other)
        return None
    raise BadRequest(f"body: {shown(name)}: neither a file nor a directory nor a link")


def _make_directory(top: Root, name: str, mode: int) -> None:
    top.make_directory(name, parents=True)
    top.change(name, mode=mode & 0o777)


def _write(top: Root, name: str, member: Member) -> None:
    writing = Writing.begin(top, name, member.info.mode)
    try:
        for chunk in member.chunks():
            writing.write(chunk)
        writing.finish(durable=False)
    finally:
        writing.abandon()
    top.change(name, times=(member.info.mtime, member.info.mtime))


def _clear(top: Root, name: str, links_only: bool = False) -> None:
    """Make room for a new thing of that name; a directory does not make room."""
    with suppress(NotFound):
        if not links_only or stat.S_ISLNK(top.stat(name, follow=False).status.st_mode):
            top.delete(name)


def inner_name(name: str) -> str:
    """The name of a member below the top of its tree, empty for the top itself; raises BadRequest for any other."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadRequest(f"body: {shown(name)}: a name that leads out of the tree")
    return "/".join(parts)


def leads_out(name: str, target: str) -> bool:
    """Whether a link of that name would lead out of the tree that it is in, read as it is written."""
    if target.startswith("/") or "\0" in target or not 0 < len(target) <= MAX_LINK_CHARACTERS:
        return True
    depth = name.count("/")
    for part in target.split("/"):
        depth += {"..": -1, "": 0, ".": 0}.get(part, 1)
        if depth < 0:
            return True
    return False
