"""Secrets of a task: values of its environment, and the login for the pull of its image.

They stand apart from all that is ever shown; the former go when the task has ended, the latter when it runs.
"""

import sqlite3

from kohakuriver.model import codec
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.task import Submission


def keep(tx: sqlite3.Connection, task_id: Snowflake, given: Submission) -> None:
    """Keep the values until the task has ended, and the login until it runs."""
    if given.secret_env:
        tx.execute("INSERT INTO task_secrets VALUES(?, ?)", (task_id, codec.dumps(given.secret_env)))
    if given.registry_login:
        tx.execute("INSERT INTO task_logins VALUES(?, ?)", (task_id, given.registry_login))


def of_task(tx: sqlite3.Connection, task_id: Snowflake) -> dict[str, str]:
    """Names and values; empty when there are none."""
    row = tx.execute("SELECT document FROM task_secrets WHERE task_id = ?", (task_id,)).fetchone()
    found: dict[str, str] = codec.loads(row[0]) if row else {}
    return found


def login_of(tx: sqlite3.Connection, task_id: Snowflake) -> str:
    """USER:PASSWORD; empty when there is none (any more)."""
    row = tx.execute("SELECT login FROM task_logins WHERE task_id = ?", (task_id,)).fetchone()
    return str(row[0]) if row else ""
