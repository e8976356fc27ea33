"""Secret values of a task's environment, kept apart from all that is ever shown and gone when the task has ended."""

import sqlite3
from collections.abc import Mapping

from kohakuriver.model import codec
from kohakuriver.model.codec import Snowflake


def keep(tx: sqlite3.Connection, task_id: Snowflake, values: Mapping[str, str]) -> None:
    """Keep them until the task has ended."""
    if values:
        tx.execute("INSERT INTO task_secrets VALUES(?, ?)", (task_id, codec.dumps(dict(values))))


def of_task(tx: sqlite3.Connection, task_id: Snowflake) -> dict[str, str]:
    """Names and values; empty when there are none."""
    row = tx.execute("SELECT document FROM task_secrets WHERE task_id = ?", (task_id,)).fetchone()
    found: dict[str, str] = codec.loads(row[0]) if row else {}
    return found
