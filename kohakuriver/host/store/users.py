"""Rows of accounts; a deleted one stays as a name that nobody can have again, because tasks and the trail speak of it."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NotFound

COLUMNS = "user_id, name, role, disabled, created_at, last_login_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """An account without its password; times are UTC unix seconds, `groups` are in order of their names."""

    user_id: Snowflake
    name: str
    role: Role
    disabled: bool
    created_at: float
    last_login_at: float | None = None
    groups: tuple[str, ...] = ()


def insert(tx: sqlite3.Connection, user: UserRow, password: str) -> None:
    """A new account with its hashed password; raises Conflict when the name is or was somebody's."""
    if tx.execute("SELECT 1 FROM users WHERE name = ?", (user.name,)).fetchone():
        raise Conflict(f"username: {user.name} is taken, or was somebody's once")
    tx.execute(
        "INSERT INTO users VALUES(?, ?, ?, ?, ?, ?, ?, NULL)",
        (user.user_id, user.name, user.role.label, user.disabled, password, user.created_at, user.last_login_at),
    )
    set_groups(tx, user.user_id, user.groups)


def find(tx: sqlite3.Connection, user_id: int) -> UserRow | None:
    """The account, if it is there and was not deleted."""
    row = tx.execute(f"SELECT {COLUMNS} FROM users WHERE user_id = ? AND deleted_at IS NULL", (user_id,)).fetchone()
    return None if row is None else _user(tx, row)


def get(tx: sqlite3.Connection, user_id: int) -> UserRow:
    """The account; raises NotFound."""
    found = find(tx, user_id)
    if found is None:
        raise NotFound(f"there is no account {user_id}")
    return found


def every(tx: sqlite3.Connection) -> list[UserRow]:
    """All accounts that were not deleted, by name."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM users WHERE deleted_at IS NULL ORDER BY name").fetchall()
    return [_user(tx, row) for row in rows]


def were_there_any(tx: sqlite3.Connection) -> bool:
    """Whether there is or ever was an account."""
    return tx.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None


def password_of(tx: sqlite3.Connection, name: str) -> str:
    """The hashed password of an account that may log in; empty when there is none of that name."""
    row = tx.execute(
        "SELECT password FROM users WHERE name = ? AND disabled = 0 AND deleted_at IS NULL", (name,)
    ).fetchone()
    return str(row[0]) if row else ""


def named(tx: sqlite3.Connection, name: str) -> UserRow | None:
    """The account that has the name, or had it: one that was deleted is disabled for ever."""
    row = tx.execute(f"SELECT {COLUMNS} FROM users WHERE name = ?", (name,)).fetchone()
    return None if row is None else _user(tx, row)


def is_locked_out(tx: sqlite3.Connection, name: str) -> bool:
    """Whether the name is of an account that cannot be used (any more); a name without one is not."""
    user = named(tx, name)
    return user is not None and user.disabled


def set_password(tx: sqlite3.Connection, user_id: int, password: str) -> None:
    """Another hashed password."""
    tx.execute("UPDATE users SET password = ? WHERE user_id = ?", (password, user_id))


def set_role(tx: sqlite3.Connection, user_id: int, role: Role) -> None:
    tx.execute("UPDATE users SET role = ? WHERE user_id = ?", (role.label, user_id))


def set_disabled(tx: sqlite3.Connection, user_id: int, disabled: bool) -> None:
    tx.execute("UPDATE users SET disabled = ? WHERE user_id = ?", (disabled, user_id))


def set_groups(tx: sqlite3.Connection, user_id: int, groups: tuple[str, ...]) -> None:
    """Exactly these groups; raises NotFound for one that is not there."""
    tx.execute("DELETE FROM members WHERE user_id = ?", (user_id,))
    for group in groups:
        if tx.execute("SELECT 1 FROM user_groups WHERE name = ?", (group,)).fetchone() is None:
            raise NotFound(f"groups: there is no group {group}")
        tx.execute("INSERT OR IGNORE INTO members VALUES(?, ?)", (user_id, group))


def logged_in(tx: sqlite3.Connection, user_id: int, now: float) -> None:
    """Remember when he logged in last."""
    tx.execute("UPDATE users SET last_login_at = ? WHERE user_id = ?", (now, user_id))


def delete(tx: sqlite3.Connection, user_id: int, now: float) -> None:
    """Leave nothing of the account but its name."""
    set_groups(tx, user_id, ())
    tx.execute("UPDATE users SET deleted_at = ?, disabled = 1, password = '' WHERE user_id = ?", (now, user_id))


def admins(tx: sqlite3.Connection) -> int:
    """How many admins can log in."""
    query = "SELECT count(*) FROM users WHERE role = ? AND disabled = 0 AND deleted_at IS NULL"
    return int(tx.execute(query, (Role.ADMIN.label,)).fetchone()[0])


def _user(tx: sqlite3.Connection, row: sqlite3.Row) -> UserRow:
    groups = tx.execute("SELECT group_name FROM members WHERE user_id = ? ORDER BY group_name", (row["user_id"],))
    return UserRow(
        user_id=row["user_id"],
        name=row["name"],
        role=Role[row["role"].upper()],
        disabled=bool(row["disabled"]),
        created_at=row["created_at"],
        last_login_at=row["last_login_at"],
        groups=tuple(found[0] for found in groups),
    )
