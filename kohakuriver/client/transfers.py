"""Files on their way between this machine and a workload, gone on with where a connection broke."""

import os
import posixpath
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from kohakuriver.client.command import Order
from kohakuriver.client.files_view import Where
from kohakuriver.client.pace import Patience
from kohakuriver.client.progress import ProgressLine
from kohakuriver.model import files as f
from kohakuriver.model import files_api as api
from kohakuriver.model.codec import Snowflake
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


def asked(order: Order, where: Where, **members: Any) -> dict[str, Any]:
    """The members of a request about a path."""
    attempt = getattr(order.parsed, "attempt", None)
    about = {"task_id": Snowflake(int(where.task_id)), "path": where.path} | members
    return about if attempt is None else about | {"attempt": attempt}


# ---- up


def upload(order: Order, local: str, where: Where) -> Any:
    """Put one file in its place; `-` is standard input. The host's answer as plain values."""
    if local == "-":
        request = f.UploadFile(**asked(order, where))
        return order.session.upload(api.UPLOAD, request, _pieces(sys.stdin.buffer))
    with opened(local) as file, ProgressLine(order.notes, order.screen) as line:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{local}: neither a file nor a directory")
        meter = Meter(order, line, posixpath.basename(local), status.st_size)
        mode, part = stat.S_IMODE(status.st_mode) & 0o777, order.random_bytes(PART_BYTES).hex()
        request = f.UploadFile(**asked(order, where), mode=mode, part=part)
        try:
            return insist(order, meter, lambda: _upload_rest(order, file, meter, request))
        except (RiverError, KeyboardInterrupt):
            _forget_part(order, request)
            raise


def _upload_rest(order: Order, file: BinaryIO, meter: Meter, request: f.UploadFile) -> Any:
    """Send what the part does not have yet."""
    offset = _arrived(order, request) if meter.fresh else 0
    meter.done = offset
    file.seek(offset)
    rest = max(0, meter.total - offset)
    chunks = meter.counted(_exactly(file, rest))
    return order.session.upload(api.UPLOAD, replace(request, offset=offset), chunks, rest)


def _part_of(request: f.UploadFile) -> dict[str, Any]:
    path = posixpath.join(posixpath.dirname(request.path), f.part_name(request.part or ""))
    return {"task_id": request.task_id, "attempt": request.attempt, "path": path}


def _arrived(order: Order, request: f.UploadFile) -> int:
    with suppress(NotFound):
        return order.session.call(api.STAT, f.LookAtFile(**_part_of(request))).size_bytes
    return 0


def _forget_part(order: Order, request: f.UploadFile) -> None:
    with suppress(RiverError):
        order.session.another().call(api.DELETE, f.DeleteFile(**_part_of(request)))


# ---- down


def download(order: Order, where: Where, local: str) -> int:
    """Get one file, whole or not at all; `-` is standard output. Returns how many bytes it has."""
    if local == "-":
        return _pour(order, f.DownloadFile(**asked(order, where)), order.screen.out.buffer)
    mode = order.session.call(api.STAT, f.LookAtFile(**asked(order, where))).mode & 0o777
    part = f"{local}.{order.random_bytes(4).hex()}.part"
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            size = _pour(order, f.DownloadFile(**asked(order, where)), file)
            os.fchmod(file.fileno(), mode & ~_umask())
        os.replace(part, local)
    except OSError as broken:
        raise BadRequest(f"{local}: {broken.strerror or broken}") from None
    finally:
        with suppress(OSError):
            os.unlink(part)
    return size


def _pour(order: Order, request: f.DownloadFile, file: BinaryIO) -> int:
    with ProgressLine(order.notes, order.screen) as line:
        meter = Meter(order, line, posixpath.basename(request.path))
        version = [""]

        def once() -> None:
            rest = replace(request, offset=meter.done, version=version[0])
            with order.session.stream(api.DOWNLOAD, rest) as stream:
                version[0] = stream.header(f.VERSION_HEADER) or ""
                meter.total = int(stream.header(f.SIZE_HEADER) or 0)
                file.writelines(meter.counted(stream.chunks()))

        try:
            insist(order, meter, once)
        except Conflict:
            if not meter.done:
                raise
            raise Conflict(f"{request.path} was changed while it was read: get it again") from None
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
