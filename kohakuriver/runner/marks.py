"""Which attempts may have begun to run: one empty file each, which outlives `kill -9` and costs no fsync.

An attempt that is marked and that the engine does not know has run and was taken away; it must not run again. The
mark is put down right before the start and taken away when the end is stored.
"""

from contextlib import suppress
from pathlib import Path

from kohakuriver.runner.disk import Disk
from kohakuriver.system.engine import WorkloadKey


class Marks:
    """The marks of one runner, in a directory of their own on the local disk."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory, self._disk = directory, disk

    async def put(self, key: WorkloadKey) -> None:
        """The attempt is about to start."""
        await self._disk.do(self._path(key).touch)

    async def take_away(self, key: WorkloadKey) -> None:
        """It did not start, or its end is stored and nothing is left of it."""
        with suppress(OSError):  # one that stays is harmless, and swept away at the next start
            await self._disk.do(lambda: self._path(key).unlink(missing_ok=True))

    async def all(self) -> dict[WorkloadKey, float]:
        """Every marked attempt, and when it was marked (UTC unix seconds)."""
        return await self._disk.do(self._read_all)

    def _path(self, key: WorkloadKey) -> Path:
        return self._directory / f"{key.task_id}.{key.attempt}"

    def _read_all(self) -> dict[WorkloadKey, float]:
        self._directory.mkdir(parents=True, exist_ok=True)
        return {_key(path.name): path.stat().st_mtime for path in self._directory.iterdir()}


def _key(name: str) -> WorkloadKey:
    task_id, _, attempt = name.partition(".")
    return WorkloadKey(int(task_id), int(attempt))
