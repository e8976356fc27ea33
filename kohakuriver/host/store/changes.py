"""Rows of what changed last, numbered without gaps: written in the transaction of the change itself, kept for a while.

Triggers write those of tasks, VPS and jobs, and let the oldest go; whoever has read up to a number that is kept has
missed nothing.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from kohakuriver.model import codec
from kohakuriver.model.events import Kind, Step
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.task import HistoryEntry
from kohakuriver.model.units import rfc3339

AT_ONCE = 500


class Change(NamedTuple):
    """One of them; `entry` is JSON."""

    seq: int
    kind: str
    name: str
    owner: str
    entry: str


def span(tx: sqlite3.Connection) -> tuple[int, int]:
    """The number before the oldest that is kept, and the newest."""
    oldest, newest = tx.execute("SELECT min(seq), max(seq) FROM changes").fetchone()
    return (oldest - 1, newest) if newest else (0, 0)


def after(tx: sqlite3.Connection, seq: int) -> tuple[Change, ...]:
    """The next ones, not too many."""
    rows = tx.execute("SELECT seq, kind, name, owner, entry FROM changes WHERE seq > ? LIMIT ?", (seq, AT_ONCE))
    return tuple(Change(*row) for row in rows)


def tell(tx: sqlite3.Connection, kind: Kind, name: str, step: Step) -> None:
    """A node or an environment changed."""
    tx.execute(
        "INSERT INTO changes(kind, name, owner, entry) VALUES(?, ?, '', ?)", (kind, name, codec.encode_text(step))
    )


def tell_progress(tx: sqlite3.Connection, node: str, waits_for: Iterable[tuple[int, str]], now: float) -> None:
    """Tasks that are being prepared on a node, and how far that is; what they are not any more is left out."""
    at = rfc3339(now)
    for task_id, text in waits_for:
        query = "SELECT task_type, owner, attempt FROM tasks WHERE task_id = ? AND node = ? AND status = 'assigning'"
        row = tx.execute(query, (task_id, node)).fetchone()
        if row is not None:
            entry = HistoryEntry(
                at=at, event=None, status=Status.ASSIGNING, attempt=row["attempt"], node=node, detail=text
            )
            kind = Kind.VPS if row["task_type"] == Kind.VPS else Kind.TASK
            values = (kind, str(task_id), row["owner"], codec.encode_text(entry))
            tx.execute("INSERT INTO changes(kind, name, owner, entry) VALUES(?, ?, ?, ?)", values)
