"""The tarballs of environments: files in one directory, each with its digest beside it; all of this blocks."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kohakuriver.model.errors import NotFound
from kohakuriver.model.image import DIGEST, Tarball, environment_of
from kohakuriver.system.docker_archives import Transfer

CHUNK_BYTES = 1 << 20
DIGEST_SUFFIX, PART_SUFFIX = ".sha256", ".part"


class Tarballs:
    """One directory; a tarball is there as soon as its digest file is, which comes last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Tarball]:
        """Those that are whole, newest first."""
        files = self.directory.glob("*.tar") if self.directory.is_dir() else ()
        found = [tarball for path in files if (tarball := _tarball(path)) is not None]
        return sorted(found, key=lambda tarball: (tarball.made_at, tarball.stem), reverse=True)

    def newest(self, environment: str) -> Tarball | None:
        """The one that nodes should have; None when nobody made any."""
        return next((tarball for tarball in self.all() if tarball.environment == environment), None)

    def find(self, name: str) -> Tarball:
        """The one of that stem, or the newest of that environment; raises NotFound."""
        every = self.all()
        for tarball in (*(t for t in every if t.stem == name), *(t for t in every if t.environment == name)):
            return tarball
        raise NotFound(f"there is no tarball {name}")

    def read(self, tarball: Tarball, offset: int) -> Iterator[bytes]:
        """Its bytes from there to the end; raises NotFound when it was deleted meanwhile."""
        try:
            file = self.path(tarball.stem).open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no tarball {tarball.stem}") from None
        file.seek(offset)

        def chunks() -> Iterator[bytes]:
            with file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

        return chunks()

    def path(self, stem: str) -> Path:
        """Where it lies."""
        return self.directory / f"{stem}.tar"

    def new_part(self, stem: str) -> Path:
        """Where one that is not whole is written; what a host that was killed left of any goes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.glob(f".*{PART_SUFFIX}"):
            left.unlink()
        return self.directory / f".{stem}{PART_SUFFIX}"

    def finish(self, part: Path, stem: str, digest: str) -> None:
        """Make a whole file that is on disk a tarball; it may be cut anywhere."""
        os.rename(part, self.path(stem))
        self._write_digest(stem, digest)

    def lying(self, stem: str) -> Path:
        """The file that somebody put there, or a tarball; raises NotFound."""
        path = self.path(stem)
        if not path.is_file():
            raise NotFound(f"there is no tarball {stem} (a file {path} would be one)")
        return path

    def adopt(self, stem: str, transfer: Transfer) -> Tarball:
        """The tarball of that stem, whose digest is worked out if it lies there without; raises NotFound."""
        path = self.lying(stem)
        if _tarball(path) is None:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    transfer.check()
            self._write_digest(stem, digest.hexdigest())
        return self.find(stem)

    def delete(self, stem: str) -> None:
        """Take it away; its digest goes first, so that it is never taken for whole."""
        with suppress(FileNotFoundError):
            self.path(stem).with_suffix(".tar" + DIGEST_SUFFIX).unlink()
        with suppress(FileNotFoundError):
            self.path(stem).unlink()

    def prune(self, environment: str, keep: int) -> list[str]:
        """Delete all but the newest of an environment; which ones."""
        mine = [tarball.stem for tarball in self.all() if tarball.environment == environment]
        for stem in mine[keep:]:
            self.delete(stem)
        return mine[keep:]

    def _write_digest(self, stem: str, digest: str) -> None:
        path = self.path(stem)
        part = self.directory / f".{stem}{DIGEST_SUFFIX}{PART_SUFFIX}"
        with part.open("w") as file:
            file.write(f"{digest}  {path.name}\n")  # as `sha256sum -c` reads it
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path.with_suffix(".tar" + DIGEST_SUFFIX))
        _sync_directory(self.directory)


def _tarball(path: Path) -> Tarball | None:
    try:
        environment, made_at = environment_of(path.stem)
        digest = path.with_suffix(".tar" + DIGEST_SUFFIX).read_text()[:64]
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    if not re.fullmatch(DIGEST, digest):
        return None
    return Tarball(stem=path.stem, environment=environment, made_at=made_at, size_bytes=size, digest=digest)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
