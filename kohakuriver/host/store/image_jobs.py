"""Rows of the host's long work on environments: what is not over is done (again) after a restart."""

import sqlite3

from kohakuriver.model import codec
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.docker_api import Job
from kohakuriver.model.errors import Conflict, NotFound

KEPT = 200
UNFINISHED = "state IN ('waiting', 'running')"


def insert(tx: sqlite3.Connection, job: Job, login: str | None = None) -> None:
    """A new job, with USER:PASSWORD that is kept until it is over. The oldest ones are forgotten.

    Raises Conflict while another one is about the same environment.
    """
    query = f"SELECT job_id FROM image_jobs WHERE environment = ? AND {UNFINISHED}"
    busy = tx.execute(query, (job.environment,)).fetchone()
    if busy:
        raise Conflict(f"environment {job.environment} is being worked on (job {busy[0]})")
    tx.execute(
        "DELETE FROM image_jobs WHERE job_id NOT IN (SELECT job_id FROM image_jobs ORDER BY 1 DESC LIMIT ?)", (KEPT,)
    )
    if login:
        tx.execute("INSERT INTO image_job_logins VALUES(?, ?)", (job.job_id, login))
    save(tx, job)


def login_of(tx: sqlite3.Connection, job_id: Snowflake) -> str:
    """USER:PASSWORD; empty when there is none."""
    row = tx.execute("SELECT login FROM image_job_logins WHERE job_id = ?", (job_id,)).fetchone()
    return str(row[0]) if row else ""


def save(tx: sqlite3.Connection, job: Job) -> None:
    """How it stands now."""
    values = (job.job_id, job.environment, job.state, codec.encode_text(job))
    tx.execute("INSERT OR REPLACE INTO image_jobs VALUES(?, ?, ?, ?)", values)


def get(tx: sqlite3.Connection, job_id: Snowflake) -> Job:
    """The job; raises NotFound."""
    row = tx.execute("SELECT document FROM image_jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return _job(row[0])


def every(tx: sqlite3.Connection) -> list[Job]:
    """All that are remembered, newest first."""
    return [_job(row[0]) for row in tx.execute("SELECT document FROM image_jobs ORDER BY job_id DESC")]


def next_one(tx: sqlite3.Connection) -> Job | None:
    """The oldest that is not over."""
    row = tx.execute(f"SELECT document FROM image_jobs WHERE {UNFINISHED} ORDER BY job_id LIMIT 1").fetchone()
    return None if row is None else _job(row[0])


def _job(text: str) -> Job:
    return codec.decode(Job, codec.loads(text), strict=False)


def is_first_start(tx: sqlite3.Connection) -> bool:
    """Whether the first environment was never asked for; from now on it was."""
    return tx.execute("INSERT OR IGNORE INTO facts VALUES('first_environment', 'asked')").rowcount == 1
