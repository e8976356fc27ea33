"""A tar read from a stream that is not trusted: what it may make us keep in memory is bounded.

Formats: POSIX ustar and pax, and GNU's long names; `tarfile` takes the blocks apart, and writes none of it anywhere.
"""

import re
import tarfile
from collections.abc import Callable, Iterator

from kohakuriver.model.errors import BadRequest

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 64 * 1024  # of a name or the attributes before a member
READ_BYTES = 1024 * 1024
_RECORD = re.compile(rb"(\d{1,8}) ([^=]+)=")
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
Read = Callable[[int], bytes]  # so many bytes, fewer only at the end


class Member:
    """One member; `chunks` gives what is in it, once and before the next member is asked for."""

    def __init__(self, info: tarfile.TarInfo, read: Read) -> None:
        self.info, self._read = info, read
        self.size = info.size if info.isreg() else 0
        self._left = self.size

    def chunks(self) -> Iterator[bytes]:
        """The bytes of a file; raises BadRequest when the tar ends before."""
        while self._left:
            chunk = self._read(min(self._left, READ_BYTES))
            if not chunk:
                raise _cut()
            self._left -= len(chunk)
            yield chunk

    def skip(self) -> None:
        """Go to the end of it."""
        for _ in self.chunks():
            pass
        padding = -self.size % BLOCK
        if len(self._read(padding)) != padding:
            raise _cut()


def members(read: Read) -> Iterator[Member]:
    """Every member of a tar; raises BadRequest for what is none, or is cut off."""
    said: dict[str, str] = {}
    while (block := read(BLOCK)) != bytes(BLOCK):
        if len(block) != BLOCK:
            raise _cut()
        info = _header(block)
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, *_LONG):
            said |= _attributes(info, _small(info, read))
            continue
        if info.type == tarfile.XGLTYPE:
            _small(info, read)
            continue
        member = Member(_named(info, said), read)
        said = {}
        yield member
        member.skip()
    while read(READ_BYTES):  # zeros up to the size of a record
        pass


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as broken:
        raise BadRequest(f"body: not a tar ({broken})") from None
    if info.size < 0:
        raise BadRequest("body: not a tar (a size below zero)")
    return info


def _small(info: tarfile.TarInfo, read: Read) -> bytes:
    if info.size > MAX_HEADER_BYTES:
        raise BadRequest(f"body: a header of more than {MAX_HEADER_BYTES} bytes")
    padded = info.size + -info.size % BLOCK
    data = read(padded)
    if len(data) != padded:
        raise _cut()
    return data[: info.size]


def _attributes(info: tarfile.TarInfo, data: bytes) -> dict[str, str]:
    if info.type in _LONG:
        return {_LONG[info.type]: data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found, at = {}, 0
    while at < len(data):
        record = _RECORD.match(data, at)
        if record is None or not 5 <= int(record[1]) <= len(data) - at:
            raise BadRequest("body: not a tar (its attributes are malformed)")
        end = at + int(record[1])
        found[record[2].decode("utf-8", "replace")] = data[record.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    return found


def _named(info: tarfile.TarInfo, said: dict[str, str]) -> tarfile.TarInfo:
    """The header with what the attributes before it say instead."""
    if any(name.startswith("GNU.sparse") for name in said) or info.type == tarfile.GNUTYPE_SPARSE:
        raise BadRequest("body: files with holes are not understood: make the tar without --sparse")
    info.name = said.get("path", info.name)
    info.linkname = said.get("linkpath", info.linkname)
    try:
        info.size = int(said.get("size", info.size))
        info.mtime = float(said.get("mtime", info.mtime))
    except ValueError:
        raise BadRequest("body: not a tar (an attribute is no number)") from None
    if not 0 <= info.size < 2**63 or not abs(info.mtime) < 2**40:
        raise BadRequest("body: not a tar (a number out of range)")
    return info


def _cut() -> BadRequest:
    return BadRequest("body: the tar is cut off")
