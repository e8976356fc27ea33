"""Rows of join tokens: their secrets follow from the host's master key, so none is kept here."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotFound

COLUMNS = "join_id, node, uses, uses_left, created_by, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class JoinTokenRow:
    """A join token; times are UTC unix seconds, `node` is None when it is for any."""

    join_id: Snowflake
    node: str | None
    uses: int
    uses_left: int
    created_by: str
    created_at: float
    expires_at: float


def insert(tx: sqlite3.Connection, row: JoinTokenRow) -> None:
    """A new join token."""
    values = (row.join_id, row.node, row.uses, row.uses_left, row.created_by, row.created_at, row.expires_at)
    tx.execute(f"INSERT INTO join_tokens({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)", values)


def find(tx: sqlite3.Connection, join_id: int, now: float) -> JoinTokenRow | None:
    """The token, if it can still be used."""
    query = f"SELECT {COLUMNS} FROM join_tokens WHERE join_id = ? AND uses_left > 0 AND expires_at > ?"
    row = tx.execute(query, (join_id, now)).fetchone()
    return None if row is None else JoinTokenRow(*row)


def use(tx: sqlite3.Connection, join_id: int) -> None:
    """Take one use of a token that was found in this transaction."""
    tx.execute("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE join_id = ?", (join_id,))


def every(tx: sqlite3.Connection, now: float) -> list[JoinTokenRow]:
    """All that can still be used, oldest first."""
    query = f"SELECT {COLUMNS} FROM join_tokens WHERE uses_left > 0 AND expires_at > ? ORDER BY join_id"
    return [JoinTokenRow(*row) for row in tx.execute(query, (now,))]


def delete(tx: sqlite3.Connection, join_id: int) -> None:
    """Take one back; raises NotFound."""
    if tx.execute("DELETE FROM join_tokens WHERE join_id = ?", (join_id,)).rowcount == 0:
        raise NotFound(f"there is no join token {join_id}")


def sweep(tx: sqlite3.Connection, now: float) -> None:
    """Forget those that cannot be used any more."""
    tx.execute("DELETE FROM join_tokens WHERE expires_at <= ? OR uses_left = 0", (now,))
