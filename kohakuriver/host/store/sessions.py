"""Rows of browser sessions: only the digest of each is kept."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model.codec import Snowflake

COLUMNS = "session_id, user_id, address, digest, created_at, expires_at, last_used_at"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A browser session; `address` is where it began, times are UTC unix seconds."""

    session_id: Snowflake
    user_id: int
    address: str
    digest: bytes
    created_at: float
    expires_at: float
    last_used_at: float | None = None


def insert(tx: sqlite3.Connection, session: SessionRow) -> None:
    """A new session."""
    values = (
        session.session_id,
        session.user_id,
        session.address,
        session.digest,
        session.created_at,
        session.expires_at,
        session.last_used_at,
    )
    tx.execute(f"INSERT INTO sessions({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)", values)


def of_user(tx: sqlite3.Connection, user_id: int) -> list[SessionRow]:
    """A person's sessions, oldest first."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM sessions WHERE user_id = ? ORDER BY session_id", (user_id,))
    return [SessionRow(*row) for row in rows]


def delete(tx: sqlite3.Connection, session_id: int) -> None:
    """End one."""
    tx.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))


def delete_others(tx: sqlite3.Connection, user_id: int, but: int = 0) -> int:
    """End all of a person but one (0: all); how many there were."""
    query = "DELETE FROM sessions WHERE user_id = ? AND session_id <> ?"
    return tx.execute(query, (user_id, but)).rowcount


def keep_newest(tx: sqlite3.Connection, user_id: int, most: int) -> None:
    """End a person's oldest ones until so many are left."""
    tx.execute(
        """DELETE FROM sessions WHERE user_id = :user AND session_id NOT IN
           (SELECT session_id FROM sessions WHERE user_id = :user ORDER BY session_id DESC LIMIT :most)""",
        {"user": user_id, "most": most},
    )


def expired(tx: sqlite3.Connection, now: float) -> set[int]:
    """Whose sessions have run out."""
    return {row[0] for row in tx.execute("SELECT user_id FROM sessions WHERE expires_at <= ?", (now,))}


def sweep(tx: sqlite3.Connection, now: float) -> None:
    """Forget those that have run out."""
    tx.execute("DELETE FROM sessions WHERE expires_at <= ?", (now,))


def used(tx: sqlite3.Connection, session_id: int, at: float) -> None:
    """Write down when it was used last (UTC unix seconds)."""
    tx.execute("UPDATE sessions SET last_used_at = ? WHERE session_id = ?", (at, session_id))
