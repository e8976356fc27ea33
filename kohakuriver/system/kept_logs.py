"""How long outputs are kept: what is too old, or more than is wanted, goes, and leaves word that it went.

Outputs lie in `{task_id}/{attempt}/`. The word is an empty file `removed/{task_id}.{attempt}`, as old as the removal.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
REMOVED = "removed"
DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Keep:
    """How long and how much; 0 is no limit."""

    days: int
    size_bytes: int

    @property
    def is_limited(self) -> bool:
        """Whether anything ever goes."""
        return bool(self.days or self.size_bytes)


@dataclass(frozen=True, slots=True)
class KeptLog:
    """The output of one attempt; `ended_at` is when it was touched last (UTC unix seconds)."""

    task_id: int
    attempt: int
    ended_at: float
    size_bytes: int


def look(logs: Path) -> list[KeptLog]:
    """All that is there."""
    found = ((task, attempt) for task in _numbered(logs) for attempt in _numbered(logs / str(task)))
    return [_measured(logs, task, attempt) for task, attempt in found]


def doomed(found: Sequence[KeptLog], is_over: Callable[[KeptLog], bool], keep: Keep, now: float) -> list[KeptLog]:
    """What must go, oldest first; what is not over stays, but counts in the size."""
    left, going = sum(each.size_bytes for each in found), []
    for each in sorted(filter(is_over, found), key=lambda each: each.ended_at):
        is_old = keep.days and each.ended_at + keep.days * DAY_SECONDS < now
        if not is_old and not (keep.size_bytes and left > keep.size_bytes):
            break
        going.append(each)
        left -= each.size_bytes
    return going


def remove(logs: Path, going: Sequence[KeptLog]) -> None:
    """Take outputs away; what cannot be taken away stays until the next time."""
    for each in going:
        try:
            (logs / REMOVED).mkdir(exist_ok=True)
            (logs / REMOVED / f"{each.task_id}.{each.attempt}").touch()  # first, so that nothing goes without a word
            shutil.rmtree(logs / str(each.task_id) / str(each.attempt))
        except OSError as refused:
            log.warning("an output cannot be removed task=%d attempt=%d error=%s", each.task_id, each.attempt, refused)
            continue
        with suppress(OSError):  # another attempt is there
            (logs / str(each.task_id)).rmdir()
    if going:
        log.info("outputs removed attempts=%d bytes=%d", len(going), sum(each.size_bytes for each in going))


def word_of(logs: Path, task_id: int, attempt: int) -> bytes | None:
    """What to say in the place of an output that was removed; None when none was."""
    try:
        removed_at = (logs / REMOVED / f"{task_id}.{attempt}").stat().st_mtime
    except FileNotFoundError:
        return None
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(removed_at))
    return f"[kohakuriver: this output was removed on {day} UTC, as LOG_KEEP_DAYS or LOG_KEEP_BYTES says]\n".encode()


def _numbered(directory: Path) -> Iterator[int]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from (int(name) for name in os.listdir(directory) if name.isascii() and name.isdecimal())


def _measured(logs: Path, task_id: int, attempt: int) -> KeptLog:
    directory, touched, size = logs / str(task_id) / str(attempt), 0.0, 0
    with suppress(FileNotFoundError, NotADirectoryError):  # removed, or not ours
        touched = directory.stat().st_mtime
        for entry in os.scandir(directory):
            status = entry.stat(follow_symlinks=False)
            touched, size = max(touched, status.st_mtime), size + status.st_size
    return KeptLog(task_id, attempt, touched, size)
