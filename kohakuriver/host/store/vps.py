"""Rows of VPS: what is asked of the tasks' table because a VPS has a name and people who may use it."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from kohakuriver.host.store import tasks
from kohakuriver.host.store.tasks import Shown
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.vps import VPS_TYPE, Vps

LIVING = "task_type = 'vps' AND status IN ('pending', 'assigning', 'running', 'paused', 'lost', 'stopped')"
NOT_STOPPED = "task_type = 'vps' AND status IN ('pending', 'assigning', 'running', 'paused', 'lost')"
MINE = "(owner = :caller OR task_id IN (SELECT task_id FROM assignments WHERE user_id = :user_id))"
SHOWN_AT_ONCE = 5


def get(tx: sqlite3.Connection, task_id: Snowflake) -> Vps:
    """The VPS; raises NotFound, or Conflict when the id is a task's."""
    found = tasks.get(tx, task_id)
    if not isinstance(found, Vps):
        raise Conflict(f"task {task_id} is a command, not a VPS")
    return found


def show(tx: sqlite3.Connection, task_id: Snowflake) -> Shown:
    """The VPS as it is sent; raises as `get` does."""
    get(tx, task_id)
    return tasks.show(tx, task_id)


def page(tx: sqlite3.Connection, wanted: Mapping[str, Any], before: int | None, limit: int) -> list[Shown]:
    """The newest VPS whose columns equal `wanted` (None: any), older than `before`."""
    return tasks.page(tx, {**wanted, "task_type": VPS_TYPE}, before, limit)


def of_caller(tx: sqlite3.Connection, caller: Caller, wanted: Mapping[str, Any], limit: int) -> list[Shown]:
    """The newest VPS that he owns or may use, with this `status`, `node` and `owner`, older than `before`, where given."""
    query = f"""SELECT {tasks.SHOWN} FROM tasks WHERE task_type = 'vps' AND {MINE}
                AND (:status IS NULL OR status = :status) AND (:node IS NULL OR node = :node)
                AND (:owner IS NULL OR owner = :owner) AND (:before IS NULL OR task_id < :before)
                ORDER BY task_id DESC LIMIT :limit"""
    given = {"status": None, "node": None, "owner": None, "before": None, **wanted}
    given |= {"caller": caller.name, "user_id": caller.user_id, "limit": limit}
    return [tasks.shown(row) for row in tx.execute(query, given)]


def running(tx: sqlite3.Connection) -> list[Vps]:
    """Every VPS that is on a node and runs or is frozen there."""
    query = f"SELECT {tasks.SHOWN} FROM tasks WHERE task_type = 'vps' AND status IN ('running', 'paused')"
    return [vps_of(tasks.shown(row)) for row in tx.execute(query)]


def check_name(tx: sqlite3.Connection, owner: str, name: str | None) -> None:
    """Raise Conflict when a living VPS of this owner has the name."""
    query = f"SELECT task_id FROM tasks WHERE owner = ? AND name = ? AND {LIVING}"
    row = tx.execute(query, (owner, name)).fetchone()
    if row is not None:
        raise Conflict(f"name: {owner} has a VPS {name!r} already ({row[0]})")


def id_of(tx: sqlite3.Connection, caller: Caller, text: str) -> Snowflake:
    """The id of the living VPS that somebody means by its id or name: his own, else one he may use, else any he sees.

    `OWNER/NAME` says whose. Raises NotFound in the same words for what is not there and what he may not see, and
    Conflict when several are meant.
    """
    if text.isascii() and text.isdecimal():
        return _visible(tx, caller, text, f"task_id = :id AND {LIVING}", {"id": min(int(text), tasks.MOST_ID)})
    owner, _, name = text.rpartition("/")
    given = {"owner": owner or caller.name, "name": name}
    if not owner:
        row = tx.execute(
            f"SELECT task_id FROM tasks WHERE owner = :owner AND name = :name AND {LIVING}", given
        ).fetchone()
        if row is not None:
            return Snowflake(row[0])
    return _visible(tx, caller, text, f"name = :name AND {LIVING}" + (" AND owner = :owner" if owner else ""), given)


def called(tx: sqlite3.Connection, text: str) -> list[Vps]:
    """The living VPS of that id or name, whosever they are; not very many."""
    column = "task_id" if text.isascii() and text.isdecimal() else "name"
    given = min(int(text), tasks.MOST_ID) if column == "task_id" else text
    query = f"SELECT {tasks.SHOWN} FROM tasks WHERE {column} = ? AND {LIVING} ORDER BY task_id LIMIT 100"
    return [vps_of(tasks.shown(row)) for row in tx.execute(query, (given,))]


def _visible(tx: sqlite3.Connection, caller: Caller, text: str, where: str, given: Mapping[str, Any]) -> Snowflake:
    everything = {**given, "caller": caller.name, "user_id": caller.user_id}
    query = f"SELECT task_id, owner, name, {MINE} FROM tasks WHERE {where} ORDER BY task_id"
    found = [row for row in tx.execute(query, everything) if caller.sees_all or row[3]]
    closer = [row for row in found if row[3]] or found  # what he may use before what he only sees
    if not closer:
        raise NotFound(f"there is no VPS {text}")
    if len(closer) > 1:
        told = ", ".join(f"{row[1]}/{row[2]} ({row[0]})" for row in closer[:SHOWN_AT_ONCE])
        raise Conflict(f"several VPS are called {text}; say whose: {told}")
    return Snowflake(closer[0][0])


def count_not_stopped(tx: sqlite3.Connection, owners: Sequence[str]) -> int:
    """How many VPS of these people are not stopped."""
    marks = ",".join("?" * len(owners))
    return int(
        tx.execute(f"SELECT count(*) FROM tasks WHERE {NOT_STOPPED} AND owner IN ({marks})", owners).fetchone()[0]
    )


def vps_of(row: Shown) -> Vps:
    """The typed VPS of a row that is one."""
    found = tasks.task_of(row)
    assert isinstance(found, Vps)
    return found
