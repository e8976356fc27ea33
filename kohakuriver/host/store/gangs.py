"""Rows of gangs: tasks over several nodes, which are placed together or not at all."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Desired, Status


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a gang, as it stands."""

    gang: Snowflake
    task_id: Snowflake
    rank: int
    size: int
    stops_together: bool
    status: Status
    desired: Desired


def insert(tx: sqlite3.Connection, task_ids: Sequence[Snowflake], stops_together: bool) -> None:
    """These tasks belong together, in the order of their ranks."""
    rows = [(task, task_ids[0], rank, len(task_ids), stops_together) for rank, task in enumerate(task_ids)]
    tx.executemany("INSERT INTO gangs VALUES(?, ?, ?, ?, ?)", rows)


def every(tx: sqlite3.Connection) -> list[Member]:
    """The members of all gangs that are not over, gang by gang, rank by rank."""
    query = """SELECT g.gang, g.task_id, g.rank, g.size, g.stops_together, t.status, t.desired
               FROM gangs g JOIN tasks t ON t.task_id = g.task_id ORDER BY g.gang, g.rank"""
    return [
        Member(Snowflake(r[0]), Snowflake(r[1]), r[2], r[3], bool(r[4]), Status(r[5]), Desired(r[6]))
        for r in tx.execute(query)
    ]


def delete(tx: sqlite3.Connection, gang: Snowflake) -> None:
    """A gang is over."""
    tx.execute("DELETE FROM gangs WHERE gang = ?", (gang,))


def ranks(tx: sqlite3.Connection, task_id: Snowflake) -> list[str]:
    """The overlay addresses of the gang of a task, by rank; empty for a task of none."""
    query = """SELECT a.address FROM gangs me JOIN gangs g ON g.gang = me.gang
               JOIN overlay_addresses a ON a.task_id = g.task_id WHERE me.task_id = ? ORDER BY g.rank"""
    return [str(IPv4Address(row[0])) for row in tx.execute(query, (task_id,))]
