"""Rows of the public keys by which accounts log in over SSH."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict

COLUMNS = "key_id, user_id, name, role, public_key, created_at, last_used_at"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A public key (`ALGORITHM BASE64`) of an account; `role` is the most it may do, times are UTC unix seconds."""

    key_id: Snowflake
    user_id: int
    name: str
    role: Role
    public_key: str
    created_at: float
    last_used_at: float | None = None


def insert(tx: sqlite3.Connection, key: KeyRow) -> None:
    """A new key; raises Conflict when the account has it already."""
    known = tx.execute("SELECT name FROM ssh_keys WHERE user_id = ? AND public_key = ?", (key.user_id, key.public_key))
    if (row := known.fetchone()) is not None:
        raise Conflict(f"public_key: it is there already, as {row[0]}")
    tx.execute(
        f"INSERT INTO ssh_keys({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)",
        (key.key_id, key.user_id, key.name, key.role.label, key.public_key, key.created_at, key.last_used_at),
    )


def of_user(tx: sqlite3.Connection, user_id: int) -> list[KeyRow]:
    """An account's keys, oldest first."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM ssh_keys WHERE user_id = ? ORDER BY key_id", (user_id,))
    return [KeyRow(row[0], row[1], row[2], Role[row[3].upper()], *row[4:]) for row in rows]


def delete(tx: sqlite3.Connection, key_id: int) -> None:
    """Take one away."""
    tx.execute("DELETE FROM ssh_keys WHERE key_id = ?", (key_id,))


def delete_all(tx: sqlite3.Connection, user_id: int) -> None:
    """Take all of an account away."""
    tx.execute("DELETE FROM ssh_keys WHERE user_id = ?", (user_id,))


def used(tx: sqlite3.Connection, key_id: int, at: float) -> None:
    """Write down when it was used last (UTC unix seconds)."""
    tx.execute("UPDATE ssh_keys SET last_used_at = ? WHERE key_id = ?", (at, key_id))
