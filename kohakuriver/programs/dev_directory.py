"""Where a throw-away cluster keeps its state, and how the next one finds what a killed one left behind."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest, Conflict

PREFIX = "kohakuriver-dev-"
LOCK_NAME, RECORD_NAME = "dev.lock", "dev.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What is needed to find a cluster's workloads when its processes are gone."""

    cluster_id: str
    nodes: list[str]
    engine: str
    docker_socket: str

    def write(self, directory: Path) -> None:
        (directory / RECORD_NAME).write_text(json.dumps(asdict(self)))


@contextmanager
def dev_directory(asked: Path | None) -> Iterator[Path]:
    """The directory asked for, which stays, or a fresh one that goes; raises Conflict when another cluster uses it."""
    if asked is None:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    else:
        directory = asked.expanduser().absolute()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock = take_lock(directory)
        if lock is None:
            raise Conflict(f"another dev cluster uses {directory}")
        with os.fdopen(lock):
            yield directory
    finally:
        if asked is None:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def leftovers() -> Iterator[list[tuple[Path, Record | None]]]:
    """Directories of this user whose cluster was killed, with what it wrote down; they are deleted afterwards."""
    with contextlib.ExitStack() as held:
        found = []
        for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            lock = take_lock(directory) if _is_mine(directory) else None
            if lock is not None:
                held.enter_context(os.fdopen(lock))
                found.append((directory, read_record(directory)))
        yield found
        for directory, _ in found:
            shutil.rmtree(directory, ignore_errors=True)


def take_lock(directory: Path) -> int | None:
    """The descriptor that holds the directory, None when a living process holds it."""
    lock = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def read_record(directory: Path) -> Record | None:
    """What the cluster of a directory wrote down, None when it did not come so far."""
    try:
        return codec.decode(Record, codec.loads((directory / RECORD_NAME).read_bytes()))
    except (OSError, BadRequest):
        return None


def _is_mine(directory: Path) -> bool:
    status = directory.lstat()
    return (
        directory.is_dir()
        and not directory.is_symlink()
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o077
    )
