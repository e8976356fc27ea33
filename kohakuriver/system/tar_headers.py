"""Walks over the headers of a tar archive and passes over what is between them, trusting no number in it.

Formats: POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU tar with long names. Only one entry is in memory at any time.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

BLOCK_BYTES = 512
RECORD_LIMIT_BYTES = 1 << 20  # of a pax header or a long name
READ_BYTES = 1 << 18
REGULAR, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
SPECIAL = (b"3", b"4", b"6")  # devices and pipes
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"


class BadArchive(Exception):
    """The file is not what it should be; the message says how."""


class Source(Protocol):
    """Bytes that are read once, from the first to the last."""

    def read(self, count: int) -> bytes:
        """Just so many bytes; raises BadArchive when there are fewer."""

    def skip(self, count: int) -> None:
        """Pass over so many bytes; raises BadArchive when there are fewer."""


class Span:
    """A stretch of a file, which is sought in instead of read."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    @property
    def at(self) -> int:
        """Where in the file the next byte stands."""
        return self._at

    def read(self, count: int) -> bytes:
        self._file.seek(self._at)
        self.skip(count)
        data = self._file.read(count)
        if len(data) < count:
            raise BadArchive("it ends in the middle")
        return data

    def skip(self, count: int) -> None:
        if count > self._end - self._at:
            raise BadArchive("it ends in the middle")
        self._at += count

    def some(self) -> bytes:
        """The next bytes, however many; empty at the end."""
        return self.read(min(READ_BYTES, self._end - self._at))


class Inflated:
    """What a gzip stream unpacks to, never more than `limit_bytes` of it."""

    def __init__(self, packed: Span, limit_bytes: int) -> None:
        self._packed, self._left = packed, limit_bytes
        self._unzip = zlib.decompressobj(wbits=31)
        self._ready = b""

    def read(self, count: int) -> bytes:
        parts, missing = [], count
        while missing:
            parts.append(self._take(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._take(count))

    def _take(self, most: int) -> bytes:
        while not self._ready:
            self._ready = self._more()
        taken, self._ready = self._ready[:most], self._ready[most:]
        return taken

    def _more(self) -> bytes:
        try:
            packed = self._unzip.unconsumed_tail or self._packed.some()
            if not packed or self._unzip.eof:
                raise BadArchive("a packed layer ends in the middle")
            made = self._unzip.decompress(packed, READ_BYTES)
        except zlib.error as broken:
            raise BadArchive(f"a packed layer is broken: {broken}") from None
        self._left -= len(made)
        if self._left < 0:
            raise BadArchive("it unpacks to more than is allowed (IMAGE_LIMIT_BYTES)")
        return made


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its name, what kind it is, where a link leads, how many bytes it has."""

    name: str
    kind: bytes
    link: str
    size: int


def entries(source: Source) -> Iterator[Entry]:
    """The entries in order; whoever reads an entry's bytes from the source has to read all of them.

    Raises BadArchive, also for one that does not end as archives do.
    """
    extra: dict[str, str] = {}
    while any(block := source.read(BLOCK_BYTES)):
        entry = _entry(block)
        if entry.kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
            extra |= _extra(entry, source)
            continue
        if entry.kind == b"S" or any(key.startswith("GNU.sparse.") for key in extra):
            raise BadArchive(f"{shown(entry.name)} has holes, which may be of any size")
        entry, extra = _with(entry, extra), {}
        padded = -(-entry.size // BLOCK_BYTES) * BLOCK_BYTES
        yield entry
        source.skip(padded)


def shown(name: str) -> str:
    """A name out of an archive, for a message."""
    return repr(name[:100])


def _entry(block: bytes) -> Entry:
    told, counted = _number(block[148:156]), sum(block[:148]) + 8 * 32 + sum(block[156:])
    if told != counted:
        raise BadArchive("a header is broken (its checksum is wrong)")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    kind = block[156:157].replace(b"\0", REGULAR).replace(b"7", REGULAR)
    size = _number(block[124:136])
    return Entry(name, kind, _text(block[157:257]), 0 if kind in (HARD_LINK, SYMLINK, DIRECTORY, *SPECIAL) else size)


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for what octal digits cannot hold
        found = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            raise BadArchive("a header holds a negative number")
        return found
    digits = field.split(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise BadArchive("a header holds no number where one must be")
    return int(digits or b"0", 8)


def _extra(entry: Entry, source: Source) -> dict[str, str]:
    """What a header for the next entry says of it."""
    if entry.size > RECORD_LIMIT_BYTES:
        raise BadArchive(f"a name or attribute has {entry.size} bytes")
    data = source.read(-(-entry.size // BLOCK_BYTES) * BLOCK_BYTES)[: entry.size]
    if entry.kind == _PAX:
        return _records(data)
    if entry.kind == _PAX_GLOBAL:  # readers of images pay no heed to it
        return {}
    return {"path" if entry.kind == _LONG_NAME else "linkpath": _text(data)}


def _records(data: bytes) -> dict[str, str]:
    """The records of a pax header, `LENGTH KEY=VALUE\\n`."""
    found, at = {}, 0
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : at + length].partition(b"=")
        if length <= len(digits) + 1 or at + length > len(data) or not equals or value[-1:] != b"\n":
            raise BadArchive("an extended header is broken")
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse."):
            found[key.decode(errors="replace")] = value[:-1].decode(errors="surrogateescape")
        at += length
    return found


def _with(entry: Entry, extra: dict[str, str]) -> Entry:
    size = extra.get("size", "")
    if size and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise BadArchive("an extended header holds a size that is none")
    real = int(size) if size and entry.kind == REGULAR else entry.size
    return Entry(extra.get("path", entry.name), entry.kind, extra.get("linkpath", entry.link), real)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="surrogateescape")
