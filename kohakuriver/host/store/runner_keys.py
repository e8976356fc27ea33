"""Rows of what the runners' keys are made of, besides the master key that stands in no database.

While a key is being changed the one before is kept as the former one.
"""

import sqlite3
from dataclasses import astuple, dataclass, field

COLUMNS = "hostname, join_id, runner_nonce, host_nonce, revoked, joined_at, sealed"


@dataclass(frozen=True, slots=True)
class RunnerKeyRow:
    """The key of one runner as it was agreed; a revoked one keeps its name closed.

    `sealed` (hex) is one that was not made of a join token; it takes the master key to open it.
    """

    hostname: str
    join_id: int
    runner_nonce: str
    host_nonce: str
    revoked: bool
    joined_at: float
    sealed: str = field(default="", repr=False)


def save(tx: sqlite3.Connection, row: RunnerKeyRow) -> None:
    """Insert the key of a name, in the place of all that it had."""
    forget_former(tx, row.hostname)
    tx.execute(f"INSERT OR REPLACE INTO runner_keys({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)", astuple(row))


def succeed(tx: sqlite3.Connection, row: RunnerKeyRow) -> None:
    """The same, with the one before kept as the former one."""
    before = find(tx, row.hostname)
    save(tx, row)
    if before is not None:
        tx.execute(f"INSERT INTO former_runner_keys({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)", astuple(before))


def former(tx: sqlite3.Connection, hostname: str) -> RunnerKeyRow | None:
    """The one before, while that is still good."""
    row = tx.execute(f"SELECT {COLUMNS} FROM former_runner_keys WHERE hostname = ?", (hostname,)).fetchone()
    return None if row is None else _key(row)


def forget_former(tx: sqlite3.Connection, hostname: str) -> None:
    """From now on only the last one is good."""
    tx.execute("DELETE FROM former_runner_keys WHERE hostname = ?", (hostname,))


def find(tx: sqlite3.Connection, hostname: str) -> RunnerKeyRow | None:
    """The key of that name, if there is or was one."""
    row = tx.execute(f"SELECT {COLUMNS} FROM runner_keys WHERE hostname = ?", (hostname,)).fetchone()
    return None if row is None else _key(row)


def every(tx: sqlite3.Connection) -> list[RunnerKeyRow]:
    """All of them."""
    return [_key(row) for row in tx.execute(f"SELECT {COLUMNS} FROM runner_keys")]


def delete(tx: sqlite3.Connection, hostname: str) -> None:
    """Forget the keys of a name."""
    forget_former(tx, hostname)
    tx.execute("DELETE FROM runner_keys WHERE hostname = ?", (hostname,))


def _key(row: sqlite3.Row) -> RunnerKeyRow:
    return RunnerKeyRow(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6])
