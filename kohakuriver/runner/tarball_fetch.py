"""Gets the file of a tarball onto the node: from shared storage, or from the host, going on where it broke off."""

import asyncio
import hashlib
import logging
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from kohakuriver.model.errors import EngineFailed, NodeUnreachable, NotFound, RiverError
from kohakuriver.model.image import TARBALL_FOLDER, Tarball
from kohakuriver.runner.disk import Disk
from kohakuriver.runner.shared_storage import SharedStorage
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_archives import Transfer
from kohakuriver.system.image_archive import Limits

log = logging.getLogger(__name__)
CHUNK_BYTES = 1 << 20
SILENCE_SECONDS = 20.0
PAUSE_FIRST_SECONDS, PAUSE_CAP_SECONDS = 0.25, 5.0
PART_SUFFIX = ".part"
PART_KEPT_SECONDS = 24 * 3600.0


class TarballSource(Protocol):
    """The host, as far as it gives tarballs."""

    def tarball(self, tarball: Tarball, offset: int) -> AbstractAsyncContextManager[Any]:
        """An open answer whose `content` is the tarball's bytes from there on; raises RiverError."""


@dataclass(slots=True)
class TarballFetch:
    """`directory` holds what arrives, one file for each digest; `source` is known once the runner is put together."""

    directory: Path
    shared: SharedStorage
    disk: Disk
    clock: Clock
    patience_seconds: float
    limits: Limits
    source: TarballSource | None = None

    async def get(self, tarball: Tarball, transfer: Transfer) -> Path:
        """A file with just the bytes of the tarball; raises EngineFailed, Stopped, OSError."""
        transfer.total_bytes = tarball.size_bytes
        return await self._from_shared(tarball, transfer) or await self._from_host(tarball, transfer)

    async def discard(self, path: Path) -> None:
        """The file is not needed any more; one in shared storage stays."""
        if path.parent == self.directory:
            await self.disk.do(lambda: path.unlink(missing_ok=True))

    async def _from_shared(self, tarball: Tarball, transfer: Transfer) -> Path | None:
        if self.shared.directory is None or not self.shared.verdict.usable:
            return None
        path = self.shared.directory / TARBALL_FOLDER / f"{tarball.stem}.tar"
        try:
            digest, _ = await self.disk.do(lambda: _read_all(path, transfer))
        except OSError as broken:
            log.warning("tarball is not read from shared storage path=%s error=%s", path, broken)
            return None
        if digest.hexdigest() != tarball.digest:
            log.warning("tarball in shared storage is another one path=%s", path)
            transfer.done_bytes = 0
            return None
        return path

    async def _from_host(self, tarball: Tarball, transfer: Transfer) -> Path:
        part = self.directory / f"{tarball.digest}{PART_SUFFIX}"
        await self.disk.do(lambda: _sweep(self.directory, part, self.clock.now() - PART_KEPT_SECONDS))
        arriving = await self.disk.do(lambda: _take_up(part, tarball.size_bytes, transfer))
        try:
            await self._insist(tarball, arriving, transfer)
        except NotFound as gone:  # nobody will go on with it
            await self.discard(part)
            raise _not_given(tarball, gone) from None
        finally:
            arriving.file.close()  # nothing is buffered in it
        if arriving.digest.hexdigest() != tarball.digest:
            await self.discard(part)
            raise EngineFailed(f"tarball {tarball.stem} did not arrive as it is on the host", retry_elsewhere=True)
        return part

    async def _insist(self, tarball: Tarball, arriving: "_Arriving", transfer: Transfer) -> None:
        """Have all bytes come, however often the host goes away; raises EngineFailed when none came for too long."""
        pause, quiet_since = PAUSE_FIRST_SECONDS, self.clock.monotonic()
        while arriving.size < tarball.size_bytes:
            before = arriving.size
            try:
                await self._once(tarball, arriving, transfer)
            except NodeUnreachable as broken:
                log.warning("tarball breaks off stem=%s at=%d error=%s", tarball.stem, arriving.size, broken)
                why: RiverError = broken
            except NotFound:
                raise
            except RiverError as refused:
                raise _not_given(tarball, refused) from None
            else:
                why = NodeUnreachable("the host's answer was not whole")
            if arriving.size > before:
                pause, quiet_since = PAUSE_FIRST_SECONDS, self.clock.monotonic()
            elif self.clock.monotonic() - quiet_since > self.patience_seconds:
                raise _not_given(tarball, why)
            if arriving.size < tarball.size_bytes:
                await self.clock.sleep(pause)
                pause = min(2 * pause, PAUSE_CAP_SECONDS)

    async def _once(self, tarball: Tarball, arriving: "_Arriving", transfer: Transfer) -> None:
        assert self.source is not None
        async with self.source.tarball(tarball, arriving.size) as answer:
            while arriving.size < tarball.size_bytes:
                async with asyncio.timeout(SILENCE_SECONDS):
                    chunk: bytes = await answer.content.read(CHUNK_BYTES)
                if not chunk:
                    return
                taken = chunk[: tarball.size_bytes - arriving.size]
                await self.disk.do(lambda taken=taken: arriving.add(taken))  # type: ignore[misc]
                transfer.moved(len(taken))


@dataclass(slots=True)
class _Arriving:
    """What has arrived so far."""

    file: BinaryIO
    digest: "hashlib._Hash"
    size: int

    def add(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _sweep(directory: Path, but: Path, before: float) -> None:
    """Take away what broke off long ago, and what nobody goes on with, because there is a newer one."""
    for part in directory.glob(f"*{PART_SUFFIX}"):
        with suppress(FileNotFoundError):  # it has just become an image
            if part != but and part.stat().st_mtime < before:
                part.unlink()


def _take_up(part: Path, most: int, transfer: Transfer) -> _Arriving:
    """What arrived before the runner was ended, if anything did."""
    part.parent.mkdir(exist_ok=True, mode=0o700)
    if part.exists() and part.stat().st_size > most:
        part.unlink()
    file = part.open("ab", buffering=0)
    digest, size = _read_all(part, transfer)
    return _Arriving(file, digest, size)


def _read_all(path: Path, transfer: Transfer) -> "tuple[hashlib._Hash, int]":
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            transfer.moved(len(chunk))
    return digest, size


def _not_given(tarball: Tarball, why: Exception) -> EngineFailed:
    return EngineFailed(f"tarball {tarball.stem} cannot be had from the host: {why}", retry_elsewhere=True)
