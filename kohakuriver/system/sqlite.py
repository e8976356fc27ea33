"""SQLite for asyncio: one thread writes with group commit, a few read without ever waiting for it.

A unit of work is a plain function of a connection, so nobody can await a network inside a transaction. Writes that
wait together share one transaction and one fsync; each stands or falls alone (savepoints), and none is answered
before it is on disk. Reads that wait together share one trip to their thread and back, which is most of their cost; and
what was looked up since the last commit is still true, so it is not read again.
"""

import asyncio
import fcntl
import functools
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple

from kohakuriver.model.errors import Conflict, StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
Terms = TypeVarTuple("Terms")
Work = Callable[[sqlite3.Connection], T]
WRITE_BATCH, READ_BATCH = 256, 8
READERS = 2
SCRUB_WAIT_SECONDS = 1.0
MOST_KEPT = 32  # answers of look-ups
# What speaks of the file or the disk, and not of the work that met it (https://sqlite.org/rescode.html).
DISK_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


class InUse(Conflict):
    """Another program has the file open; each would act on what it believes to be all there is."""


class NewerSchema(Conflict):
    """The file was written by a newer release; this one must not touch it."""


@dataclass(slots=True)
class _Job:
    """One unit of work, and the promise of its result.

    As a context it keeps what the work raises for whoever awaits it; what the disk did wrong concerns everybody.
    """

    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, raised: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if raised is None or getattr(raised, "sqlite_errorcode", 0) & 0xFF in DISK_CODES:
            return False
        if isinstance(raised, StopIteration):  # which no future can carry
            self.error = RuntimeError("the work ended with StopIteration")
            self.error.__cause__ = raised
        else:
            self.error = raised
        return True

    def settle(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Lane:
    """Jobs on their way to threads that serve them in batches."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False

    async def run(self, work: Work[T]) -> T:
        """Queue a job and await its result; raises StoreUnavailable when the lane is closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise StoreUnavailable("the database is closed: the program is stopping")
            self._jobs.put(_Job(work, loop, future))
        return await future

    def serve(self, most: int, handle: Callable[[list[_Job]], None]) -> None:
        """Take what waits, at most so many at once, until the lane is closed."""
        while (first := self._jobs.get()) is not None:
            batch = [first, *self._waiting(most - 1)]
            handle(batch)
            for loop in {job.loop for job in batch}:
                _settle_on(loop, [job for job in batch if job.loop is loop])

    def _waiting(self, most: int) -> Iterator[_Job]:
        for _ in range(most):
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job

    def close(self, servers: int) -> None:
        """Let each of the serving threads end after what waits now."""
        with self._closing:
            self._closed = True
            for _ in range(servers):
                self._jobs.put(None)


def _settle_on(loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
    def settle_all() -> None:
        for job in jobs:
            job.settle()

    try:
        loop.call_soon_threadsafe(settle_all)
    except RuntimeError:
        return  # the loop is closed: nobody waits for the answer, and the rows are on disk


def _tell(loop: asyncio.AbstractEventLoop, told: "asyncio.Future[None]") -> None:
    def tell() -> None:
        if not told.done():
            told.set_result(None)

    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(tell)


class Database:
    """One SQLite file in WAL mode, opened, backed up and migrated by the constructor; nobody else may open one on it.

    Raises StoreUnavailable when it cannot be opened, InUse when somebody has it, NewerSchema when a newer release wrote it.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path, self._lock = path, _lock(path)
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            self._connection, *readers = self._connections = _open(path, migrations)
            undo.pop_all()
        self._writes, self._reads = _Lane(), _Lane()
        self._commits = 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._waiting_lock = threading.Lock()
        self._scrubbing, self._is_closed = threading.Lock(), False
        self._kept: dict[tuple[Any, ...], tuple[int, Any]] = {}  # by question: as of which commit, and the answer
        self._threads = [_thread("store-writer", lambda: self._writes.serve(WRITE_BATCH, self._commit))]
        for reader in readers:
            answer = functools.partial(_answer, reader)
            self._threads.append(_thread("store-reader", functools.partial(self._reads.serve, READ_BATCH, answer)))

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result once that is on disk.

        What `work` raises undoes its own changes only. Raises StoreUnavailable when the disk cannot take it.
        """
        return await self._writes.run(work)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on a snapshot of what was last committed."""
        return await self._reads.run(work)

    async def look_up(self, work: Callable[[sqlite3.Connection, *Terms], T], *terms: *Terms) -> T:
        """Read what depends on nothing but hashable terms and rows; the answer is shared, so nobody may change it."""
        question = (work, *terms)
        kept = self._kept.get(question)
        if kept is not None and kept[0] == self._commits:
            answer: T = kept[1]
            return answer
        as_of = self._commits  # the snapshot is taken later, so it holds at least these
        found = await self.read(lambda tx: work(tx, *terms))
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[question] = as_of, found
        return found

    async def committed(self, seen: int) -> int:
        """How often something was committed so far, once that is not `seen`."""
        if self._commits == seen:
            loop = asyncio.get_running_loop()
            waiter = loop, loop.create_future()
            with self._waiting_lock:
                self._waiting.add(waiter)
            try:
                if self._commits == seen:  # asked again: from here on it is told
                    await waiter[1]
            finally:
                with self._waiting_lock:
                    self._waiting.discard(waiter)
        return self._commits

    async def scrub(self) -> None:
        """Have the log beside the file emptied, too, which still holds what was deleted; put off while others read."""
        await asyncio.to_thread(self._empty_log)

    def _empty_log(self) -> None:
        with self._scrubbing:
            if self._is_closed:
                return
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=SCRUB_WAIT_SECONDS)) as connection:
                try:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.OperationalError as busy:
                    log.debug("the log is not emptied now error=%s", busy)

    def close(self) -> None:
        """Finish the work that waits, then let go of the file."""
        self._writes.close(1)
        self._reads.close(READERS)
        for thread in self._threads:
            thread.join()
        with self._scrubbing:  # whoever comes last puts the log into the file, and that must be we
            self._is_closed = True
            for connection in reversed(self._connections):
                connection.close()
        os.close(self._lock)

    def _commit(self, batch: list[_Job]) -> None:
        connection = self._connection
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
        self._commits += 1  # before anybody is told, who might then look
        with self._waiting_lock:
            waiting = list(self._waiting)
        for loop, told in waiting:
            _tell(loop, told)


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _answer(connection: sqlite3.Connection, batch: list[_Job]) -> None:
    """Reads that wait together see one moment, and so does each of them however many statements it has."""
    try:
        connection.execute("BEGIN")
        for job in batch:
            with job:
                job.result = job.work(connection)
    except sqlite3.Error as broken:
        for job in batch:
            job.error = StoreUnavailable(f"the database cannot be read now: {broken}")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT work")
    with job:
        job.result = job.work(connection)
    if job.error is not None:
        connection.execute("ROLLBACK TO work")
    connection.execute("RELEASE work")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def _set_up(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "secure_delete=ON",  # a password that is gone is gone from the disk
    ):
        connection.execute(f"PRAGMA {pragma}")


def _lock(path: Path) -> int:
    """What says that the file is ours, until it is closed or the program ends."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InUse(f"{path} is in use by another program: two must not share it") from None
    return lock


def _open(path: Path, migrations: Sequence[str]) -> list[sqlite3.Connection]:
    """The connection that writes, and those that read."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    with ExitStack() as opened:
        try:
            connections = [opened.enter_context(closing(_connect(path))) for _ in range(1 + READERS)]
            for connection in connections:
                _set_up(connection)
            _bring_up_to_date(connections[0], path, migrations)
            for reader in connections[1:]:
                reader.execute("PRAGMA query_only=ON")
        except sqlite3.Error as broken:
            raise StoreUnavailable(f"{path} cannot be opened: {broken}") from broken
        opened.pop_all()  # from here on they are the caller's to close
    return connections


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    done = connection.execute("PRAGMA user_version").fetchone()[0]
    if done > len(migrations):
        raise NewerSchema(f"{path} was written by a newer release (schema {done}, this one knows {len(migrations)})")
    if 0 < done < len(migrations):
        _back_up(connection, path.with_name(f"{path.name}.schema-{done}.bak"))
    if done < len(migrations):
        _migrate(connection, migrations, done)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], done: int) -> None:
    """Run what is not done yet in one transaction: all of it or, whatever happens meanwhile, nothing."""
    connection.execute("BEGIN IMMEDIATE")
    for script in migrations[done:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={len(migrations)}")
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
    os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(to)) as copy:
        connection.backup(copy)
