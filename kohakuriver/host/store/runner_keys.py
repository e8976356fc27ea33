"""Rows of what the runners' keys are made of, besides the master key that stands in no database."""

import sqlite3
from dataclasses import dataclass

COLUMNS = "hostname, join_id, runner_nonce, host_nonce, revoked, joined_at"


@dataclass(frozen=True, slots=True)
class RunnerKeyRow:
    """The key of one runner as it was agreed; a revoked one keeps its name closed."""

    hostname: str
    join_id: int
    runner_nonce: str
    host_nonce: str
    revoked: bool
    joined_at: float


def save(tx: sqlite3.Connection, row: RunnerKeyRow) -> None:
    """Insert or replace the key of a name."""
    values = (row.hostname, row.join_id, row.runner_nonce, row.host_nonce, row.revoked, row.joined_at)
    tx.execute(f"INSERT OR REPLACE INTO runner_keys({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)", values)


def find(tx: sqlite3.Connection, hostname: str) -> RunnerKeyRow | None:
    """The key of that name, if there is or was one."""
    row = tx.execute(f"SELECT {COLUMNS} FROM runner_keys WHERE hostname = ?", (hostname,)).fetchone()
    return None if row is None else _key(row)


def every(tx: sqlite3.Connection) -> list[RunnerKeyRow]:
    """All of them."""
    return [_key(row) for row in tx.execute(f"SELECT {COLUMNS} FROM runner_keys")]


def delete(tx: sqlite3.Connection, hostname: str) -> None:
    """Forget the key of a name."""
    tx.execute("DELETE FROM runner_keys WHERE hostname = ?", (hostname,))


def _key(row: sqlite3.Row) -> RunnerKeyRow:
    return RunnerKeyRow(row[0], row[1], row[2], row[3], bool(row[4]), row[5])
