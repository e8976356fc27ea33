"""Rows of API tokens: only the digest of each is kept."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake

COLUMNS = "token_id, user_id, name, role, digest, created_at, expires_at, last_used_at"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token; `role` is the most it may do, times are UTC unix seconds."""

    token_id: Snowflake
    user_id: int
    name: str
    role: Role
    digest: bytes
    created_at: float
    expires_at: float
    last_used_at: float | None = None


def insert(tx: sqlite3.Connection, token: TokenRow) -> None:
    """A new token."""
    tx.execute(
        f"INSERT INTO tokens({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.token_id,
            token.user_id,
            token.name,
            token.role.label,
            token.digest,
            token.created_at,
            token.expires_at,
            token.last_used_at,
        ),
    )


def of_user(tx: sqlite3.Connection, user_id: int) -> list[TokenRow]:
    """A person's tokens, oldest first."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM tokens WHERE user_id = ? ORDER BY token_id", (user_id,))
    return [TokenRow(row[0], row[1], row[2], Role[row[3].upper()], *row[4:]) for row in rows]


def delete(tx: sqlite3.Connection, token_id: int) -> None:
    """End one."""
    tx.execute("DELETE FROM tokens WHERE token_id = ?", (token_id,))


def delete_all(tx: sqlite3.Connection, user_id: int) -> int:
    """End all of a person; how many there were."""
    return tx.execute("DELETE FROM tokens WHERE user_id = ?", (user_id,)).rowcount


def expired(tx: sqlite3.Connection, now: float) -> set[int]:
    """Whose tokens have run out."""
    return {row[0] for row in tx.execute("SELECT user_id FROM tokens WHERE expires_at <= ?", (now,))}


def sweep(tx: sqlite3.Connection, now: float) -> None:
    """Forget those that have run out."""
    tx.execute("DELETE FROM tokens WHERE expires_at <= ?", (now,))


def used(tx: sqlite3.Connection, token_id: int, at: float) -> None:
    """Write down when it was used last (UTC unix seconds)."""
    tx.execute("UPDATE tokens SET last_used_at = ? WHERE token_id = ?", (at, token_id))
