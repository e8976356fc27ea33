"""Rows of groups and their limits, and what their members have of the cluster."""

import dataclasses
import sqlite3
from typing import NamedTuple

from kohakuriver.model.auth_api import Group, Quota
from kohakuriver.model.errors import Conflict, NotFound

LIMITS = tuple(f.name for f in dataclasses.fields(Quota))
COLUMNS = ", ".join(("name", *LIMITS))
MEMBERS = "SELECT name FROM users JOIN members USING(user_id) WHERE group_name = ? ORDER BY name"


class Held(NamedTuple):
    """What one task has of the cluster; `gpus` is a JSON list."""

    owner: str
    priority: int
    task_id: int
    cores: int
    memory_bytes: int
    gpus: str


def save(tx: sqlite3.Connection, name: str, quota: Quota) -> None:
    """Make a group, or give it other limits."""
    sets = ", ".join(f"{limit} = excluded.{limit}" for limit in LIMITS)
    marks = ", ".join("?" * (1 + len(LIMITS)))
    tx.execute(
        f"INSERT INTO user_groups({COLUMNS}) VALUES({marks}) ON CONFLICT(name) DO UPDATE SET {sets}",
        (name, *(getattr(quota, limit) for limit in LIMITS)),
    )


def get(tx: sqlite3.Connection, name: str) -> Group:
    """The group; raises NotFound."""
    row = tx.execute(f"SELECT {COLUMNS} FROM user_groups WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"there is no group {name}")
    return _group(tx, row)


def names(tx: sqlite3.Connection) -> set[str]:
    """The names of all groups."""
    return {row[0] for row in tx.execute("SELECT name FROM user_groups")}


def every(tx: sqlite3.Connection) -> list[Group]:
    """All groups by name, with their members."""
    return [_group(tx, row) for row in tx.execute(f"SELECT {COLUMNS} FROM user_groups ORDER BY name").fetchall()]


def delete(tx: sqlite3.Connection, name: str) -> None:
    """Delete an empty group; raises NotFound, or Conflict when somebody is in it."""
    group = get(tx, name)
    if group.members:
        raise Conflict(f"group {name} still has members: {', '.join(group.members[:5])}")
    tx.execute("DELETE FROM user_groups WHERE name = ?", (name,))


def of_owner(tx: sqlite3.Connection, owner: str) -> list[Group]:
    """The groups that a person is in, without their members."""
    rows = tx.execute(
        f"""SELECT {COLUMNS} FROM user_groups WHERE name IN
            (SELECT group_name FROM members JOIN users USING(user_id) WHERE users.name = ?) ORDER BY name""",
        (owner,),
    )
    return [Group(**dict(row)) for row in rows]


def waiting(tx: sqlite3.Connection, name: str) -> int:
    """How many tasks of a group's members wait."""
    query = f"""SELECT count(*) FROM tasks INDEXED BY tasks_waiting_by_owner
                WHERE status IN ('pending_approval', 'pending') AND owner IN ({MEMBERS})"""
    return int(tx.execute(query, (name,)).fetchone()[0])


def held(tx: sqlite3.Connection) -> list[Held]:
    """What every task that is on a node has there."""
    query = """SELECT owner, priority, task_id, cores, memory_bytes, gpus FROM tasks
               WHERE status IN ('assigning', 'running', 'paused')"""
    return [Held(*row) for row in tx.execute(query)]


def _group(tx: sqlite3.Connection, row: sqlite3.Row) -> Group:
    members = [found[0] for found in tx.execute(MEMBERS, (row["name"],))]
    return Group(**dict(row), members=members)
