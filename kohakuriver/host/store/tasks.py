"""Rows of tasks and of their history; the only place that spells their SQL."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kohakuriver.model import codec
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.lifecycle import ON_NODE, Desired, Event, Status, after
from kohakuriver.model.task import HistoryEntry, Task
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import VPS_TYPE, Vps

COLUMNS = (
    "task_id, batch_id, owner, status, desired, attempt, node, priority, cores, memory_bytes, gpus, target, "
    "stdout_bytes, stderr_bytes, document, task_type, name, store"
)
KINDS: dict[str, type[Task]] = {"command": Task, VPS_TYPE: Vps}  # what the document of a row holds
LIVE = "status IN ('assigning', 'running', 'paused', 'lost')"
MOST_ID = 2**63 - 1
APART = ("stdout_bytes", "stderr_bytes", "reason")  # members of a task that its document does not hold
SHOWN = "task_id, status, node, cores, memory_bytes, gpus, target, stdout_bytes, stderr_bytes, document"
LIVE_COLUMNS = "node, task_id, attempt, status, desired, priority, cores, memory_bytes, gpus, store"


@dataclass(frozen=True, slots=True)
class Change:
    """One event in a task's life, with what else becomes known by it; `by` is the person, if one did it."""

    event: Event
    values: Mapping[str, Any] = field(default_factory=dict)
    detail: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """What placement needs to know of a waiting task; `gpus` is a JSON count or list."""

    task_id: Snowflake
    priority: int
    cores: int
    memory_bytes: int
    gpus: str
    target: str | None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """What is on a node, or was when it went silent; `gpus` is a JSON list of indices, `store` as `Task.assigned_store`."""

    node: str
    task_id: Snowflake
    attempt: int
    status: Status
    desired: Desired
    priority: int
    cores: int
    memory_bytes: int
    gpus: str
    store: str | None = None

    @property
    def holds(self) -> bool:
        """Whether its resources are taken."""
        return self.status in ON_NODE


@dataclass(frozen=True, slots=True)
class Shown:
    """A task as it is sent: its document, and what stands apart from it."""

    task_id: Snowflake
    status: Status
    node: str | None
    cores: int
    memory_bytes: int
    gpus: str
    target: str | None
    stdout_bytes: int
    stderr_bytes: int
    document: str

    def with_output(self, sizes: tuple[int, int] | None) -> "Shown":
        """The same with what the last report said of its output, in bytes of stdout and stderr."""
        return self if sizes is None else replace(self, stdout_bytes=sizes[0], stderr_bytes=sizes[1])

    def text(self, reason: str | None) -> str:
        """The whole task as JSON."""
        return (
            f'{self.document[:-1]},"stdout_bytes":{self.stdout_bytes},"stderr_bytes":{self.stderr_bytes},'
            f'"reason":{"null" if reason is None else codec.dumps(reason)}}}'
        )


def insert(tx: sqlite3.Connection, task: Task, by: str) -> None:
    """A new task, with the first entry of its history."""
    marks = ",".join("?" * (COLUMNS.count(",") + 1))
    tx.execute(f"INSERT INTO tasks({COLUMNS}) VALUES({marks})", _values(task))
    _remember(tx, task, _Entry(task.submitted_at, by=by))


def get(tx: sqlite3.Connection, task_id: Snowflake) -> Task:
    """The task; raises NotFound."""
    return task_of(show(tx, task_id))


def show(tx: sqlite3.Connection, task_id: Snowflake) -> Shown:
    """The task as it is sent; raises NotFound."""
    row = tx.execute(f"SELECT {SHOWN} FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no task {task_id}")
    return shown(row)


def owner_of(tx: sqlite3.Connection, task_id: Snowflake) -> str | None:
    """Whose the task is; None when there is none."""
    row = tx.execute("SELECT owner FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
    return None if row is None else str(row[0])


def page(tx: sqlite3.Connection, wanted: Mapping[str, Any], before: int | None, limit: int) -> list[Shown]:
    """The newest tasks whose columns equal `wanted` (None: any), older than `before`."""
    filters = {column: value for column, value in wanted.items() if value is not None}
    where = [f"{column} = :{column}" for column in filters] + (["task_id < :before"] if before else [])
    clause = f"WHERE {' AND '.join(where)}" if where else ""
    query = f"SELECT {SHOWN} FROM tasks {clause} ORDER BY task_id DESC LIMIT :limit"
    return [shown(row) for row in tx.execute(query, filters | {"before": before, "limit": limit})]


def history(tx: sqlite3.Connection, task_id: Snowflake) -> list[str]:
    """All that happened to a task, oldest first, as JSON; raises NotFound."""
    show(tx, task_id)
    rows = tx.execute("SELECT document FROM history WHERE task_id = ? ORDER BY entry_id", (task_id,))
    return [row[0] for row in rows]


def node_of_attempt(tx: sqlite3.Connection, task_id: Snowflake, attempt: int) -> str | None:
    """The node that an attempt was placed on; None when there was no such attempt."""
    entries = (codec.decode(HistoryEntry, codec.loads(text), strict=False) for text in history(tx, task_id))
    return next((entry.node for entry in entries if entry.attempt == attempt and entry.node), None)


def counts(tx: sqlite3.Connection) -> dict[str, int]:
    """How many tasks stand in each status."""
    return dict(tx.execute("SELECT status, tasks FROM counts").fetchall())


def last_id(tx: sqlite3.Connection) -> int:
    """The greatest id in use, 0 when there is none."""
    return int(tx.execute("SELECT coalesce(max(task_id), 0) FROM tasks").fetchone()[0])


def queued(tx: sqlite3.Connection, limit: int) -> Iterator[Queued]:
    """The head of the queue, read as it is asked for: priority, then submit order."""
    query = """SELECT task_id, priority, cores, memory_bytes, gpus, target, owner FROM tasks INDEXED BY tasks_queued
               WHERE status = 'pending' ORDER BY priority DESC, task_id LIMIT ?"""
    return (Queued(*row) for row in tx.execute(query, (limit,)))


def waiting_for_approval(tx: sqlite3.Connection, limit: int) -> list[Task]:
    """The tasks that have waited longest for a yes."""
    query = f"SELECT {SHOWN} FROM tasks WHERE status = 'pending_approval' ORDER BY task_id LIMIT ?"
    return [task_of(shown(row)) for row in tx.execute(query, (limit,))]


def live(tx: sqlite3.Connection, node: str | None = None) -> list[Live]:
    """What is on one node, or on all."""
    here = "" if node is None else "AND node = ?"
    rows = tx.execute(f"SELECT {LIVE_COLUMNS} FROM tasks WHERE {LIVE} {here}", () if node is None else (node,))
    return [_live(row) for row in rows]


def to_be_ordered(tx: sqlite3.Connection) -> list[Live]:
    """Rows about which a runner may have to be told something, oldest first."""
    query = f"""SELECT {LIVE_COLUMNS} FROM tasks
                WHERE status = 'assigning' OR status = 'paused' OR (status = 'running' AND desired <> 'run')
                ORDER BY task_id"""
    to_delete = f"SELECT {LIVE_COLUMNS} FROM tasks WHERE status = 'stopped' AND desired = 'kill' ORDER BY task_id"
    return [_live(row) for row in (*tx.execute(query), *tx.execute(to_delete))]


def attempts(tx: sqlite3.Connection, task_ids: Iterable[int]) -> dict[int, tuple[int, Status, str | None]]:
    """Attempt, status and node of those tasks that exist."""
    marks = [(t,) for t in task_ids]
    found = (
        tx.execute("SELECT task_id, attempt, status, node FROM tasks WHERE task_id = ?", m).fetchone() for m in marks
    )
    return {row[0]: (row[1], Status(row[2]), row[3]) for row in found if row is not None}


def move(tx: sqlite3.Connection, task: Task, change: Change, now: float) -> Task:
    """Apply one event to a task just read: the only statement that writes a status.

    Raises Conflict when the event cannot happen to a task in its status.
    """
    moved = replace(task, status=after(task.status, change.event), **change.values)
    save(tx, moved)
    _remember(tx, moved, _Entry(rfc3339(now), change.event, change.by, change.detail))
    return moved


def intend(tx: sqlite3.Connection, task: Task, desired: Desired, by: str, now: float, *, why: str = "") -> Task:
    """Write down what somebody wants of a task just read, and why if he says so."""
    if task.desired is desired:
        return task
    changed = replace(task, desired=desired)
    save(tx, changed)
    _remember(tx, changed, _Entry(rfc3339(now), None, by, f"asked to {desired}{why and f': {why}'}"))
    return changed


def save(tx: sqlite3.Connection, task: Task) -> None:
    """Write a task back, document and columns alike."""
    sets = ", ".join(f"{column} = ?" for column in COLUMNS.split(", ")[1:])
    tx.execute(f"UPDATE tasks SET {sets} WHERE task_id = ?", (*_values(task)[1:], task.task_id))


def find_submit(tx: sqlite3.Connection, owner: str, key: str, digest: str) -> list[Snowflake] | None:
    """The tasks of an earlier submit with this key; raises Conflict when that one asked for something else."""
    row = tx.execute(
        "SELECT batch_id, request_digest FROM submits WHERE owner = ? AND idempotency_key = ?", (owner, key)
    ).fetchone()
    if row is None:
        return None
    if row[1] != digest:
        raise Conflict("idempotency_key: it was used for another request")
    found = tx.execute("SELECT task_id FROM tasks WHERE batch_id = ? ORDER BY task_id", (row[0],))
    return [Snowflake(r[0]) for r in found]


def remember_submit(tx: sqlite3.Connection, owner_and_key: tuple[str, str], digest: str, batch_id: Snowflake) -> None:
    """Keep the key of a submit for ever."""
    tx.execute("INSERT INTO submits VALUES(?, ?, ?, ?)", (*owner_and_key, digest, batch_id))


def _values(task: Task) -> tuple[Any, ...]:
    members = codec.encoder(KINDS[task.task_type])(task)
    for name in APART:
        del members[name]
    gpus = task.assigned_gpus if task.assigned_node else task.required_gpus
    return (
        task.task_id,
        task.batch_id,
        task.owner,
        task.status,
        task.desired,
        task.attempt,
        task.assigned_node,
        task.priority,
        task.required_cores,
        task.required_memory_bytes or 0,
        codec.dumps(gpus),
        task.place_wanted,
        task.stdout_bytes,
        task.stderr_bytes,
        codec.dumps(members),
        task.task_type,
        task.name,
        task.assigned_store,
    )


def shown(row: sqlite3.Row) -> Shown:
    """A row of the columns SHOWN."""
    return Shown(row[0], Status(row[1]), *row[2:])


def _live(row: sqlite3.Row) -> Live:
    return Live(row[0], row[1], row[2], Status(row[3]), Desired(row[4]), *row[5:])


def task_of(shown: Shown) -> Task:
    """The typed task, which is a VPS where its row says so."""
    members = codec.loads(shown.text(None))
    return codec.decode(KINDS[members["task_type"]], members, strict=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a line of history says beyond the task itself."""

    at: str
    event: Event | None = None
    by: str | None = None
    detail: str | None = None


def _remember(tx: sqlite3.Connection, task: Task, entry: _Entry) -> None:
    line = HistoryEntry(
        at=entry.at,
        event=entry.event,
        status=task.status,
        attempt=task.attempt,
        node=task.assigned_node,
        by=entry.by,
        detail=entry.detail,
    )
    tx.execute("INSERT INTO history(task_id, document) VALUES(?, ?)", (task.task_id, codec.encode_text(line)))
