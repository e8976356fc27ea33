"""What a runner must still know after `kill -9`: the attempts it accepted, how they ended, which cluster is its own."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kohakuriver.model import codec
from kohakuriver.model.errors import Conflict
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.runner_api import Execute, without_password
from kohakuriver.runner.attempt import Accepted, KillOrder
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.system.sqlite import Database

T = TypeVar("T")
REMEMBERED_SECONDS = 3600.0  # how long a forgotten attempt cannot be run by a request that comes late

MIGRATIONS = (
    """
    CREATE TABLE attempts(
        task_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        request TEXT NOT NULL,
        state TEXT NOT NULL,
        kill_order TEXT,
        log_directory TEXT NOT NULL,
        log_limit_bytes INTEGER NOT NULL,
        forgotten_at REAL,
        PRIMARY KEY(task_id, attempt));
    CREATE INDEX attempts_forgotten ON attempts(forgotten_at) WHERE forgotten_at IS NOT NULL;
    CREATE TABLE facts(
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL) WITHOUT ROWID
    """,
    """
    CREATE TABLE images(
        image_id TEXT PRIMARY KEY,
        name TEXT NOT NULL) WITHOUT ROWID
    """,
    "INSERT INTO facts VALUES('store', lower(hex(randomblob(16))))",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One row: an attempt that the host must still hear of."""

    accepted: Accepted
    state: WorkloadState
    order: KillOrder | None


class Store:
    """The runner's own database; each method is one transaction, on disk when it returns.

    All raise StoreUnavailable when the disk cannot take it; nothing is changed then.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, MIGRATIONS)

    async def name(self) -> str:
        """By which these records are told from others: who loses them does not have it again."""
        return await self.fact("store")

    def close(self) -> None:
        self._db.close()

    async def ping(self) -> None:
        """Return when the store answered."""
        await self._db.read(lambda tx: tx.execute("SELECT 1").fetchone())

    async def accept(self, accepted: Accepted, state: WorkloadState) -> WorkloadState | None:
        """Keep a new attempt and return None; of one that is known already, return the state it is known by.

        Raises Conflict when a newer attempt of the task is known.
        """
        return await self._db.write(lambda tx: _accept(tx, accepted, state))

    async def held(self) -> list[Kept]:
        """Every attempt that is not forgotten, oldest first."""
        return await self._db.read(_held)

    async def order(self, key: WorkloadKey, order: KillOrder) -> None:
        """Keep that an attempt must end."""
        text = codec.encode_text(order)
        await self._db.write(
            lambda tx: tx.execute("UPDATE attempts SET kill_order=? WHERE task_id=? AND attempt=?", (text, *key))
        )

    async def end(self, key: WorkloadKey, state: WorkloadState) -> None:
        """Keep how an attempt ended."""
        text = codec.encode_text(state)
        await self._db.write(
            lambda tx: tx.execute("UPDATE attempts SET state=? WHERE task_id=? AND attempt=?", (text, *key))
        )

    async def forget(self, keys: Sequence[WorkloadKey], now: float) -> None:
        """Nobody needs to hear of these any more; only that they were here is remembered, for an hour."""
        await self._db.write(lambda tx: _forget(tx, keys, now))

    async def scrub(self) -> None:
        """Leave nothing on the disk of what was forgotten, such as secret variables."""
        await self._db.scrub()

    async def bring_image(self, image_id: str, name: str) -> None:
        """Keep that this runner brought an image to the node, under this name."""
        await self._db.write(lambda tx: tx.execute("INSERT OR REPLACE INTO images VALUES(?, ?)", (image_id, name)))

    async def brought_images(self) -> dict[str, str]:
        """The names of those, by id."""
        return await self._db.read(lambda tx: dict(tx.execute("SELECT image_id, name FROM images").fetchall()))

    async def forget_image(self, image_id: str) -> None:
        """It is not on the node any more."""
        await self._db.write(lambda tx: tx.execute("DELETE FROM images WHERE image_id=?", (image_id,)))

    async def fact(self, name: str) -> str:
        """A fact by name, empty when it is not known."""
        found = await self._db.read(lambda tx: tx.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone())
        return str(found[0]) if found else ""

    async def learn(self, name: str, value: str) -> None:
        """Keep a fact."""
        await self._db.write(lambda tx: tx.execute("INSERT OR REPLACE INTO facts VALUES(?, ?)", (name, value)))


def _accept(tx: sqlite3.Connection, accepted: Accepted, state: WorkloadState) -> WorkloadState | None:
    key = accepted.key
    newest = tx.execute(
        "SELECT attempt, state FROM attempts WHERE task_id=? ORDER BY attempt DESC LIMIT 1", (key.task_id,)
    ).fetchone()
    if newest and newest["attempt"] > key.attempt:
        raise Conflict(f"attempt {newest['attempt']} of task {key.task_id} is here; {key.attempt} comes too late")
    if newest and newest["attempt"] == key.attempt:
        return _decoded(WorkloadState, newest["state"])
    tx.execute(
        "INSERT INTO attempts(task_id, attempt, request, state, log_directory, log_limit_bytes) VALUES(?,?,?,?,?,?)",
        (
            *key,
            codec.encode_text(without_password(accepted.request)),
            codec.encode_text(state),
            str(accepted.log_directory),
            accepted.log_limit_bytes,
        ),
    )
    return None


def _held(tx: sqlite3.Connection) -> list[Kept]:
    rows = tx.execute("SELECT * FROM attempts WHERE forgotten_at IS NULL ORDER BY task_id, attempt")
    return [_kept(row) for row in rows]


def _kept(row: sqlite3.Row) -> Kept:
    request = _decoded(Execute, row["request"])
    return Kept(
        Accepted(request, Path(row["log_directory"]), row["log_limit_bytes"]),
        _decoded(WorkloadState, row["state"]),
        _decoded(KillOrder, row["kill_order"]) if row["kill_order"] else None,
    )


def _forget(tx: sqlite3.Connection, keys: Iterable[WorkloadKey], now: float) -> None:
    forget = "UPDATE attempts SET forgotten_at=?, request='' WHERE task_id=? AND attempt=?"
    tx.executemany(forget, [(now, *key) for key in keys])
    tx.execute("DELETE FROM attempts WHERE forgotten_at < ?", (now - REMEMBERED_SECONDS,))


def _decoded(kind: type[T], text: str) -> T:
    return codec.decode(kind, codec.loads(text), strict=False)
