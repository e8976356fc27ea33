"""The outputs of attempts as files: where they lie, how long they are, and their bytes from anywhere."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.runner.disk import Disk
from kohakuriver.system import kept_logs
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME
from kohakuriver.system.output_file import CHUNK_BYTES, start_of


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file, from `start` up to `end`."""

    start: int
    end: int


class Outputs:
    """Reads log files; `roots` are the directories that hold `{task_id}/{attempt}/`, the best one first."""

    def __init__(self, roots: Sequence[Path], disk: Disk) -> None:
        self._roots, self._disk = roots, disk

    async def find(self, task_id: int, attempt: int | None) -> Path | None:
        """The directory of an attempt (None: of the latest) that left output on this node; None when none did."""
        return await self._disk.do(lambda: _find(self._roots, task_id, attempt))

    async def word_of(self, task_id: int, attempt: int) -> bytes | None:
        """What to say in the place of an output that was removed; None when none was."""
        return await self._disk.do(lambda: _word_of(self._roots, task_id, attempt))

    async def close(self, directory: Path) -> tuple[int, int]:
        """Say that nothing more comes, which is from when on it is kept only so long; bytes of stdout and of stderr."""
        return await self._disk.do(lambda: _close(directory))

    async def span(self, path: Path, offset: int, lines: int | None) -> Span:
        """What to read for a request: from `offset`, or the last `lines`, up to what is there now."""
        return await self._disk.do(lambda: _span(path, offset, lines))

    async def read(self, path: Path, span: Span) -> bytes:
        """The first bytes of the span that are there, at most a chunk; empty when none are."""
        return await self._disk.do(lambda: _read(path, span))

    async def all_sizes(self, directories: Iterable[Path]) -> list[tuple[int, int]]:
        """Bytes of stdout and of stderr so far, of many attempts at once."""
        wanted = list(directories)
        return await self._disk.do(lambda: [(_size(d / STDOUT_NAME), _size(d / STDERR_NAME)) for d in wanted])


def _find(roots: Sequence[Path], task_id: int, attempt: int | None) -> Path | None:
    found: dict[int, Path] = {}
    for root in reversed(roots):
        try:
            there = os.listdir(root / str(task_id))
        except (FileNotFoundError, NotADirectoryError):
            continue
        found |= {int(name): root / str(task_id) / name for name in there if name.isdecimal()}
    return found.get(max(found, default=0) if attempt is None else attempt)


def _word_of(roots: Sequence[Path], task_id: int, attempt: int) -> bytes | None:
    words = (kept_logs.word_of(root, task_id, attempt) for root in roots)
    return next(filter(None, words), None)


def _close(directory: Path) -> tuple[int, int]:
    with suppress(OSError):
        os.utime(directory)
    return _size(directory / STDOUT_NAME), _size(directory / STDERR_NAME)


def _span(path: Path, offset: int, lines: int | None) -> Span:
    try:
        with path.open("rb") as file:
            return Span(start_of(file, offset, lines), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return Span(0, 0)


def _read(path: Path, span: Span) -> bytes:
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), min(CHUNK_BYTES, span.end - span.start), span.start)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
