"""Rows of who may use a VPS besides its owner."""

import sqlite3

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps_api import Assignment


def add(tx: sqlite3.Connection, task_id: Snowflake, user: str, by: str, now: float) -> None:
    """Let somebody use it; raises NotFound for a name that is nobody's, Conflict when he may already."""
    row = tx.execute("SELECT user_id FROM users WHERE name = ? AND deleted_at IS NULL", (user,)).fetchone()
    if row is None:
        raise NotFound(f"user: there is no account {user}")
    done = tx.execute("INSERT OR IGNORE INTO assignments VALUES(?, ?, ?, ?)", (task_id, row[0], by, now))
    if not done.rowcount:
        raise Conflict(f"user: {user} may use VPS {task_id} already")


def remove(tx: sqlite3.Connection, task_id: Snowflake, user_id: Snowflake) -> str:
    """Let him use it no longer; his name. Raises NotFound when he may not."""
    row = tx.execute("SELECT name FROM users WHERE user_id = ?", (user_id,)).fetchone()
    done = tx.execute("DELETE FROM assignments WHERE task_id = ? AND user_id = ?", (task_id, user_id))
    if row is None or not done.rowcount:
        raise NotFound(f"VPS {task_id} is not assigned to {user_id}")
    return str(row[0])


def of_vps(tx: sqlite3.Connection, task_id: Snowflake) -> list[Assignment]:
    """All who may use it, by name."""
    rows = tx.execute(
        """SELECT user_id, name, assigned_by, assigned_at FROM assignments JOIN users USING(user_id)
           WHERE task_id = ? AND deleted_at IS NULL ORDER BY name""",
        (task_id,),
    )
    return [
        Assignment(user_id=Snowflake(row[0]), user=row[1], assigned_by=row[2], assigned_at=rfc3339(row[3]))
        for row in rows
    ]


def is_assigned(tx: sqlite3.Connection, task_id: Snowflake, user_id: int) -> bool:
    """Whether the account may use it without owning it."""
    query = "SELECT 1 FROM assignments WHERE task_id = ? AND user_id = ?"
    return tx.execute(query, (task_id, user_id)).fetchone() is not None


def names_of(tx: sqlite3.Connection, user_id: int) -> frozenset[str]:
    """The ids of all that the account may use without owning it, as text."""
    rows = tx.execute("SELECT CAST(task_id AS TEXT) FROM assignments WHERE user_id = ?", (user_id,))
    return frozenset(row[0] for row in rows)


def forget(tx: sqlite3.Connection, task_id: Snowflake) -> None:
    """The VPS is gone."""
    tx.execute("DELETE FROM assignments WHERE task_id = ?", (task_id,))
