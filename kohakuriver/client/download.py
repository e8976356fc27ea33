"""Downloads a tarball into a file that is whole or not there, going on where an earlier try broke off."""

import hashlib
import os
from dataclasses import dataclass, replace
from typing import BinaryIO

from kohakuriver.client.command import Order
from kohakuriver.client.pace import Patience
from kohakuriver.client.progress import ProgressLine
from kohakuriver.model.docker_api import TARBALL_GET, TARBALL_HEADER, ReadTarball
from kohakuriver.model.errors import BadRequest, Conflict, RiverError, Unavailable
from kohakuriver.model.image import show_progress

READ_BYTES = 1 << 20
PART_SUFFIX = ".part"


@dataclass(slots=True)
class Download:
    """One tarball on its way into `file`; which one, and its digest, are known with the first answer."""

    order: Order
    file: BinaryIO
    line: ProgressLine
    began: float
    stem: str = ""
    size: int = 0
    digest: str = ""
    came: int = 0  # in this run

    def once(self, request: ReadTarball) -> None:
        """Take all that comes on one connection; raises RiverError."""
        asked = replace(request, name=self.stem or request.name, offset=self.file.tell())
        with self.order.session.stream(TARBALL_GET, asked) as stream:
            self._recognize(stream.header(TARBALL_HEADER) or "")
            for chunk in stream.chunks():
                self.file.write(chunk)
                self.came += len(chunk)
                seconds = self.order.clock.monotonic() - self.began
                text = show_progress(self.stem, self.came, 0, seconds)
                self.line.show(text, self.file.tell(), self.size)

    def _recognize(self, told: str) -> None:
        stem, size, digest = (told.split(" ") + ["", "", ""])[:3]
        if not size.isdecimal() or self.digest not in ("", digest):
            raise RiverError("the host's answer is not understood: host and client differ in version")
        self.stem, self.size, self.digest = stem, int(size), digest


def download(order: Order) -> int:
    """Returns 0 when the file is there and its digest is right; raises RiverError."""
    request: ReadTarball = order.request(order.values())
    path = order.parsed.output or f"{request.name}.tar"
    part = path + PART_SUFFIX
    try:
        with open(part, "ab") as file, ProgressLine(order.notes, order.screen) as line:
            made = Download(order, file, line, order.clock.monotonic())
            _insist(made, request)
        _check(made, part)
        os.replace(part, path)
    except OSError as broken:
        raise BadRequest(f"{path}: {broken.strerror or broken}") from None
    told = {"tarball": made.stem, "path": path, "size_bytes": made.size, "sha256": made.digest}
    order.answer(told, lambda: order.screen.line(path))
    return 0


def _insist(made: Download, request: ReadTarball) -> None:
    patience = Patience(made.order.clock, made.order.notes.warn)
    while True:
        try:
            made.once(request)
            return
        except Unavailable as away:
            if made.came:
                patience.well()
            patience.bear(away)


def _check(made: Download, part: str) -> None:
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != made.digest:
        os.unlink(part)  # what an earlier try left may have been of another one
        raise Conflict(f"{part} was not {made.stem}, and is deleted: try again")
