"""Rows of the trail: who did what to what, from where, with what result; they are never changed."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from kohakuriver.model.access import Caller
from kohakuriver.model.auth_api import AuditEntry, ExportTrail, ReadTrail
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.units import rfc3339, unix_seconds

COLUMNS = "at, user, action, object, address, result, detail"
OK, REFUSED, FAILED = "ok", "refused", "failed"
MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done, to what (`task:ID`, `user:NAME` …), with what result; no secret may be in it."""

    action: str
    object: str = ""
    detail: str = ""
    result: str = OK


@dataclass(frozen=True, slots=True)
class Done:
    """A deed with who did it and when (UTC unix seconds)."""

    at: float
    user: str
    address: str
    deed: Deed


def record(tx: sqlite3.Connection, caller: Caller, deed: Deed, now: float) -> None:
    """Write it down, in the transaction that does it."""
    record_all(tx, [Done(now, caller.name, caller.address, deed)])


def record_all(tx: sqlite3.Connection, deeds: Iterable[Done]) -> None:
    """Write down what was done outside of any transaction."""
    tx.executemany(
        f"INSERT INTO audit({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)",
        [
            (
                done.at,
                done.user,
                done.deed.action,
                done.deed.object,
                done.address,
                done.deed.result,
                done.deed.detail[:MAX_DETAIL_CHARACTERS],
            )
            for done in deeds
        ],
    )


def page(tx: sqlite3.Connection, asked: ReadTrail) -> list[AuditEntry]:
    """One page, newest first."""
    where, values = _filters(asked)
    if asked.before:
        where.append("entry_id < :before")
    query = f"{_select(where)} ORDER BY entry_id DESC LIMIT :limit"
    return [_entry(row) for row in tx.execute(query, values | {"before": asked.before, "limit": asked.limit})]


def export(tx: sqlite3.Connection, asked: ExportTrail, after: int, limit: int) -> list[AuditEntry]:
    """The next entries behind an id, oldest first."""
    where, values = _filters(asked)
    query = f"{_select([*where, 'entry_id > :after'])} ORDER BY entry_id LIMIT :limit"
    return [_entry(row) for row in tx.execute(query, values | {"after": after, "limit": limit})]


def forget_before(tx: sqlite3.Connection, moment: float, most: int) -> int:
    """Let the trail begin at a moment (UTC unix seconds), taking away at most so many entries; how many went."""
    first = tx.execute("SELECT min(entry_id) FROM audit WHERE at >= ?", (moment,)).fetchone()[0]
    if first is None:
        first = tx.execute("SELECT coalesce(max(entry_id), 0) + 1 FROM audit").fetchone()[0]
    oldest = tx.execute("SELECT coalesce(min(entry_id), 0) FROM audit").fetchone()[0]
    first = min(first, oldest + most)
    tx.execute(
        "INSERT INTO facts VALUES('audit_horizon', ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        (str(first),),
    )
    return tx.execute("DELETE FROM audit WHERE entry_id < ?", (first,)).rowcount


def _filters(asked: ReadTrail | ExportTrail) -> tuple[list[str], dict[str, object]]:
    values = {"user": asked.user, "object": asked.object}
    where = [f"{column} = :{column}" for column, value in values.items() if value is not None]
    if asked.since is not None:
        where.append("at >= :since")
        return where, values | {"since": unix_seconds(asked.since)}
    return where, dict(values)


def _select(where: list[str]) -> str:
    return f"SELECT entry_id, {COLUMNS} FROM audit" + (f" WHERE {' AND '.join(where)}" if where else "")


def _entry(row: sqlite3.Row) -> AuditEntry:
    return AuditEntry(
        entry_id=Snowflake(row["entry_id"]),
        at=rfc3339(row["at"]),
        user=row["user"],
        action=row["action"],
        object=row["object"],
        address=row["address"],
        result=row["result"],
        detail=row["detail"],
    )
