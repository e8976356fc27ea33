"""The packets of SFTP version 3 taken apart and put together (draft-ietf-secsh-filexfer-02, sections 3 to 7)."""

import os
import stat
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from kohakuriver.model.errors import BadRequest

SIZE, OWNER, MODE, TIMES, EXTENDED_ATTRIBUTES = 1, 2, 4, 8, 0x80000000
MOST_EXTENDED = 16


class NotAPacket(BadRequest):
    """What came is no packet, or not a whole one."""


class Kind(IntEnum):
    """What a packet is."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    UNSUPPORTED = 8


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked to be set; None stays as it is."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A name in an answer, with what is known of it."""

    name: str
    status: os.stat_result | None = None


class Packet:
    """The members of a packet, one after the other; raises NotAPacket when one is not whole."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def number(self) -> int:
        """32 bits."""
        return int.from_bytes(self._take(4), "big")

    def long_number(self) -> int:
        """64 bits, of which files can use 63."""
        return min(int.from_bytes(self._take(8), "big"), 2**63 - 1)

    def string(self) -> bytes:
        """Bytes behind their length."""
        return self._take(self.number())

    def attributes(self) -> Attributes:
        """What is to be set."""
        flags = self.number()
        size = self.long_number() if flags & SIZE else None
        owner = (self.number(), self.number()) if flags & OWNER else None
        mode = self.number() if flags & MODE else None
        times = (float(self.number()), float(self.number())) if flags & TIMES else None
        if flags & EXTENDED_ATTRIBUTES:
            for _ in range(min(2 * self.number(), 2 * MOST_EXTENDED)):
                self.string()
        return Attributes(size, owner, mode, times)

    def _take(self, length: int) -> bytes:
        taken = self._body[self._at : self._at + length]
        if len(taken) < length:
            raise NotAPacket("the packet is cut off")
        self._at += length
        return taken


def split(data: bytes, most_bytes: int) -> tuple[list[bytes], bytes]:
    """The packets that are whole, and what is left; raises NotAPacket for one that is too large or empty."""
    packets, at = [], 0
    while len(data) - at >= 4:
        length = int.from_bytes(data[at : at + 4], "big")
        if not 1 <= length <= most_bytes:
            raise NotAPacket(f"a packet of {length} bytes")
        if len(data) - at - 4 < length:
            break
        packets.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return packets, data[at:]


def framed(packet: bytes) -> bytes:
    """A packet behind its length."""
    return len(packet).to_bytes(4, "big") + packet


def version(number: int, extensions: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The answer to INIT."""
    return _packet(Kind.VERSION, struct.pack(">I", number), *(_string(part) for pair in extensions for part in pair))


def status(code: Status, told: str = "") -> bytes:
    """How a request ended, in words too."""
    return _packet(Kind.STATUS, struct.pack(">I", code), _string((told or code.name).encode()), _string(b"en"))


def handle(name: bytes) -> bytes:
    return _packet(Kind.HANDLE, _string(name))


def data(content: bytes) -> bytes:
    return _packet(Kind.DATA, _string(content))


def attributes(found: os.stat_result) -> bytes:
    return _packet(Kind.ATTRS, _attributes(found))


def names(found: Sequence[Name]) -> bytes:
    """Names, each as it is, as `ls -l` shows it, and with its attributes."""
    parts = [struct.pack(">I", len(found))]
    for one in found:
        parts += [_string(os.fsencode(one.name)), _string(os.fsencode(_long(one)))]
        parts.append(_attributes(one.status) if one.status else struct.pack(">I", 0))
    return _packet(Kind.NAME, *parts)


def limits(packet_bytes: int, data_bytes: int, handles: int) -> bytes:
    """The answer to `limits@openssh.com`."""
    return _packet(Kind.EXTENDED_REPLY, struct.pack(">QQQQ", packet_bytes, data_bytes, data_bytes, handles))


def _packet(kind: Kind, *parts: bytes) -> bytes:
    return bytes([kind]) + b"".join(parts)


def _string(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _attributes(found: os.stat_result) -> bytes:
    return struct.pack(
        ">IQIIIII",
        SIZE | OWNER | MODE | TIMES,
        found.st_size,
        found.st_uid & 0xFFFFFFFF,
        found.st_gid & 0xFFFFFFFF,
        found.st_mode,
        int(found.st_atime) & 0xFFFFFFFF,
        int(found.st_mtime) & 0xFFFFFFFF,
    )


def _long(one: Name) -> str:
    if one.status is None:
        return one.name
    s = one.status
    when = time.strftime("%b %d %Y", time.gmtime(s.st_mtime))
    return (
        f"{stat.filemode(s.st_mode)} {s.st_nlink:>4} {s.st_uid:<8} {s.st_gid:<8} {s.st_size:>8} {when:>12} {one.name}"
    )
