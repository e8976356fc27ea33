"""SQLite for asyncio: one thread writes with group commit, a few read without ever waiting for it.

A unit of work is a plain function of a connection, so nobody can await a network inside a transaction. Writes that
wait together share one transaction and one fsync; each stands or falls alone (savepoints), and none is answered
before it is on disk.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from kohakuriver.model.errors import StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
BATCH = 256
READERS = 2


class NewerSchema(RuntimeError):
    """The file was written by a newer release; this one must not touch it."""


@dataclass(slots=True)
class _Job:
    """One unit of work, and the promise of its result."""

    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """One SQLite file in WAL mode, opened, backed up and migrated by the constructor."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path = path
        self._writer_connection = _open(path, migrations)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_for_ever, name="store-writer", daemon=True)
        self._writer.start()
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._reading = threading.local()
        self._read_connections: list[sqlite3.Connection] = []

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result once that is on disk.

        What `work` raises undoes its own changes only. Raises StoreUnavailable when the disk cannot take it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        return await future

    async def read(self, work: Work[T]) -> T:
        """Run `work` on a snapshot of what was last committed."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def close(self) -> None:
        """Finish the writes that wait, then let go of the file."""
        self._jobs.put(None)
        self._writer.join()
        self._readers.shutdown()
        for connection in (*self._read_connections, self._writer_connection):
            connection.close()

    def _read(self, work: Work[T]) -> T:
        connection = getattr(self._reading, "connection", None)
        if connection is None:
            connection = _connect(self._path)
            connection.execute("PRAGMA query_only=ON")
            self._reading.connection = connection
            self._read_connections.append(connection)
        return work(cast(sqlite3.Connection, connection))

    def _write_for_ever(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            while len(batch) < BATCH and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                batch.append(following)
            self._commit(batch)
            for loop in {job.loop for job in batch}:
                _settle_on(loop, [job for job in batch if job.loop is loop])

    def _commit(self, batch: list[_Job]) -> None:
        connection = self._writer_connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                _run(connection, job)
            connection.execute("COMMIT")
        except sqlite3.Error as broken:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in batch:
                job.error = StoreUnavailable(f"the database cannot be written now: {broken}; nothing was changed")


def _run(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT work")
    try:
        job.result = job.work(connection)
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as broken:
        if not isinstance(broken, sqlite3.IntegrityError):
            raise  # a full or broken disk spoils the whole transaction
        job.error = broken
    except BaseException as refused:  # noqa: BLE001 - carried whole to whoever awaits this work
        job.error = refused
    if job.error is not None:
        connection.execute("ROLLBACK TO work")
    connection.execute("RELEASE work")


def _settle_on(loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
    def settle_all() -> None:
        for job in jobs:
            job.settle()

    try:
        loop.call_soon_threadsafe(settle_all)
    except RuntimeError:
        return  # the loop is closed: nobody waits for the answer, and the rows are on disk


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = _connect(path)
    path.chmod(0o600)
    done = connection.execute("PRAGMA user_version").fetchone()[0]
    if done > len(migrations):
        connection.close()
        raise NewerSchema(f"{path} was written by a newer release (schema {done}, this one knows {len(migrations)})")
    if 0 < done < len(migrations):
        _back_up(connection, path.with_name(f"{path.name}.schema-{done}.bak"))
    for number, script in enumerate(migrations[done:], start=done + 1):
        _migrate(connection, number, script)
    return connection


def _migrate(connection: sqlite3.Connection, number: int, script: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _statements(script):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={number}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; a trigger with its inner statements is one."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _back_up(connection: sqlite3.Connection, to: Path) -> None:
    with closing(sqlite3.connect(to)) as copy:
        connection.backup(copy)
    to.chmod(0o600)
