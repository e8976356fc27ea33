"""Figures of the host's API: submits, looks at one task, lists, nodes."""

import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from kohakuriver.host.store import schema
from kohakuriver.host.store import tasks as rows
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.task import Task
from tests.bench import servers
from tests.bench.figures import Bounds, Figure, at_least, interleaved
from tests.bench.load import requests_per_second

CONNECTIONS = 16
ROUNDS = 5
MILLION = 1_000_000
SUBMIT = json.dumps({"command": "true", "arguments": ["a", "b"], "required_cores": 1, "env_vars": {"A": "b"}})


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them."""
    folder.mkdir()
    small, large = folder / "small", folder / "large"
    for place in (small, large):
        (place / "host").mkdir(parents=True)
    fill(small / "host" / "host.db", 50)
    fill(large / "host" / "host.db", MILLION)
    with servers.bare_server(folder) as bare, servers.host(pyz, small) as host:
        yield submits(host.url, bare.url)
        yield one_task(host.url, bare.url)
        yield from lists(pyz, folder, bare.url)
        yield from nodes(pyz, folder, bare.url)


def submits(host: str, bare: str) -> Figure:
    """Durable submits against a bare handler that decodes as much JSON."""
    value, floor = interleaved(
        lambda: requests_per_second(f"{host}/api/tasks", CONNECTIONS, body=SUBMIT),
        lambda: requests_per_second(f"{bare}/post", CONNECTIONS, body=SUBMIT),
        ROUNDS,
    )
    return at_least("durable submits, 16 connections", value, "/s", Bounds(1000, 0.12, floor))


def one_task(host: str, bare: str) -> Figure:
    """GET /api/tasks/{id}."""
    task_id = json.loads(_get(f"{host}/api/tasks?limit=1&status=completed"))[0]["task_id"]
    value, floor = interleaved(
        lambda: requests_per_second(f"{host}/api/tasks/{task_id}", CONNECTIONS),
        lambda: requests_per_second(f"{bare}/one", CONNECTIONS),
        ROUNDS,
    )
    return at_least("GET /api/tasks/{id}", value, "/s", Bounds(None, 0.5, floor))


def lists(pyz: Path, folder: Path, bare: str) -> Iterator[Figure]:
    """The first page, against a bare handler that dumps the same 50 rows, and with a million rows against 50."""
    (folder / "tiny" / "host").mkdir(parents=True)
    fill(folder / "tiny" / "host" / "host.db", 50)
    with servers.host(pyz, folder / "tiny") as few, servers.host(pyz, folder / "large") as many:
        page = "/api/tasks?limit=50"
        (folder / "page").write_bytes(_get(few.url + page))
        value, floor = interleaved(
            lambda: requests_per_second(few.url + page, CONNECTIONS),
            lambda: requests_per_second(f"{bare}/file/page", CONNECTIONS),
            ROUNDS,
        )
        yield at_least("first page of GET /api/tasks, 50 rows", value, "/s", Bounds(None, 0.5, floor))
        value, floor = interleaved(
            lambda: requests_per_second(many.url + page, CONNECTIONS),
            lambda: requests_per_second(few.url + page, CONNECTIONS),
            ROUNDS + 2,
        )
        yield at_least("the same with 1,000,000 rows, against 50 rows", value, "/s", Bounds(None, 0.9, floor))


def nodes(pyz: Path, folder: Path, bare: str) -> Iterator[Figure]:
    """GET /api/nodes with 500 nodes."""
    from tests.bench.heartbeats import fill_nodes

    place = folder / "nodes"
    (place / "host").mkdir(parents=True)
    fill(place / "host" / "host.db", 50)
    fill_nodes(place / "host" / "host.db", 500)
    with servers.host(pyz, place) as host:
        (folder / "nodes-answer").write_bytes(_get(f"{host.url}/api/nodes"))
        value, floor = interleaved(
            lambda: requests_per_second(f"{host.url}/api/nodes", 4),
            lambda: requests_per_second(f"{bare}/file/nodes-answer", 4),
            ROUNDS,
        )
        yield at_least("GET /api/nodes with 500 nodes", value, "/s", Bounds(None, 0.5, floor))


def fill(path: Path, count: int) -> None:
    """A store with so many completed tasks; the first ones through the store's own code, the rest copied from them."""
    with sqlite3.connect(path, isolation_level=None) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        _create(db)
        db.execute("BEGIN")
        for number in range(min(count, 50)):
            rows.insert(db, _completed(Snowflake(10**15 + number)), "bench")
        have = min(count, 50)
        columns = rows.COLUMNS.split(", ")
        while have < count:
            copied = min(have, count - have)
            values = [f"task_id + {have}", *columns[1:-1]]
            values.append(f"replace(document, '\"' || task_id || '\"', '\"' || (task_id + {have}) || '\"')")
            db.execute(
                f"INSERT INTO tasks({rows.COLUMNS}) SELECT {', '.join(values)} FROM tasks ORDER BY task_id LIMIT {copied}"
            )
            have += copied
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _create(db: sqlite3.Connection) -> None:
    for number, script in enumerate(schema.MIGRATIONS, start=1):
        db.executescript(script)
        db.execute(f"PRAGMA user_version={number}")


def _completed(task_id: Snowflake) -> Task:
    return Task(
        task_id=task_id,
        batch_id=task_id,
        owner="bench",
        command="python",
        arguments=["train.py", "--epochs", "10"],
        env_vars={"SEED": "1"},
        status=Status.COMPLETED,
        attempt=1,
        tries=1,
        assigned_node="node-1",
        exit_code=0,
        submitted_at="2026-01-01T00:00:00.000Z",
        started_at="2026-01-01T00:00:01.000Z",
        completed_at="2026-01-01T00:00:02.000Z",
    )


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())
