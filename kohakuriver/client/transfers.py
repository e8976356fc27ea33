"""Files on their way between this machine and a workload, gone on with where a connection broke."""

import os
import posixpath
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from kohakuriver.client.command import Order
from kohakuriver.client.pace import Patience
from kohakuriver.client.places import Where, asked
from kohakuriver.client.progress import ProgressLine
from kohakuriver.model import files as f
from kohakuriver.model import files_api as api
from kohakuriver.model.errors import BadRequest, Conflict, NotFound, RiverError, Unavailable
from kohakuriver.model.image import show_progress

CHUNK_BYTES = 256 * 1024
PART_BYTES = 8


@dataclass(slots=True)
class Meter:
    """Shows how much of something has passed, and how fast."""

    order: Order
    line: ProgressLine
    what: str
    total: int = 0
    done: int = 0
    fresh: int = 0  # in this run
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.order.clock.monotonic()

    def passed(self, count: int) -> None:
        self.done += count
        self.fresh += count
        if self.order.notes.for_a_person:
            seconds = self.order.clock.monotonic() - self.began
            self.line.show(show_progress(self.what, self.done, self.total, seconds), self.done, self.total)

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same bytes."""
        for chunk in chunks:
            self.passed(len(chunk))
            yield chunk


def insist(order: Order, meter: Meter, once: Any) -> Any:
    """What `once` returns, tried again while the connection breaks; raises RiverError when it has lasted too long."""
    patience = Patience(order.clock, order.notes.warn)
    while True:
        before = meter.fresh
        try:
            return once()
        except Unavailable as away:
            if meter.fresh > before:
                patience.well()
            patience.bear(away)


# ---- up


def upload(order: Order, local: str, where: Where) -> Any:
    """Put one file in its place; `-` is standard input. The host's answer as plain values."""
    if local == "-":
        return order.session.upload(*asked(order, where, api.UPLOAD), _pieces(sys.stdin.buffer))
    with opened(local) as file, ProgressLine(order.notes, order.screen) as line:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{local}: neither a file nor a directory")
        meter = Meter(order, line, posixpath.basename(local), status.st_size)
        mode, part = stat.S_IMODE(status.st_mode) & 0o777, order.random_bytes(PART_BYTES).hex()
        so_far = where._replace(path=posixpath.join(posixpath.dirname(where.path), f.part_name(part)))

        def send_rest() -> Any:
            """Send what the part does not have yet."""
            offset = meter.done = _arrived(order, so_far) if meter.fresh else 0
            file.seek(offset)
            rest = max(0, meter.total - offset)
            request = asked(order, where, api.UPLOAD, mode=mode, part=part, offset=offset)
            return order.session.upload(*request, meter.counted(_exactly(file, rest)), rest)

        try:
            return insist(order, meter, send_rest)
        except (RiverError, KeyboardInterrupt):
            with suppress(RiverError):
                order.session.another().call(*asked(order, so_far, api.DELETE))
            raise


def _arrived(order: Order, so_far: Where) -> int:
    with suppress(NotFound):
        return order.session.call(*asked(order, so_far, api.STAT)).size_bytes
    return 0


# ---- down


def download(order: Order, where: Where, local: str) -> int:
    """Get one file, whole or not at all; `-` is standard output. Returns how many bytes it has."""
    if local == "-":
        return _pour(order, where, order.screen.out.buffer)
    mode = order.session.call(*asked(order, where, api.STAT)).mode & 0o777
    part = f"{local}.{order.random_bytes(4).hex()}.part"
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            size = _pour(order, where, file)
            os.fchmod(file.fileno(), mode & ~_umask())
        os.replace(part, local)
    except OSError as broken:
        raise BadRequest(f"{local}: {broken.strerror or broken}") from None
    finally:
        with suppress(OSError):
            os.unlink(part)
    return size


def _pour(order: Order, where: Where, file: BinaryIO) -> int:
    with ProgressLine(order.notes, order.screen) as line:
        meter = Meter(order, line, posixpath.basename(where.path))
        version = [""]

        def once() -> None:
            rest = asked(order, where, api.DOWNLOAD, offset=meter.done, version=version[0])
            with order.session.stream(*rest) as stream:
                version[0] = stream.header(f.VERSION_HEADER) or ""
                meter.total = int(stream.header(f.SIZE_HEADER) or 0)
                file.writelines(meter.counted(stream.chunks()))

        try:
            insist(order, meter, once)
        except Conflict:
            if not meter.done:
                raise
            raise Conflict(f"{where.path} was changed while it was read: get it again") from None
        file.flush()
        return meter.done


# ---- this machine's files


def opened(local: str) -> BinaryIO:
    """A file of this machine; raises BadRequest."""
    try:
        return open(local, "rb")
    except OSError as broken:
        raise BadRequest(f"{local}: {broken.strerror}") from None


def _exactly(file: BinaryIO, count: int) -> Iterator[bytes]:
    """So many bytes; raises BadRequest when there are fewer by now."""
    while count:
        chunk = _read(file, min(CHUNK_BYTES, count))
        if not chunk:
            raise BadRequest(f"{file.name} became shorter while it was sent")
        count -= len(chunk)
        yield chunk


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while chunk := _read(file, CHUNK_BYTES):
        yield chunk


def _read(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read1(count) if hasattr(file, "read1") else file.read(count)
    except OSError as broken:
        raise BadRequest(f"{file.name}: {broken.strerror}") from None


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
