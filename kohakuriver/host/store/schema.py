"""The host's schema: a list of migrations that only grows.

A task is one JSON document, ready to be sent; the columns beside it are what queries need, written from the same value
by the same statement (`tasks.save`). Output sizes change while the document does not, so they stand apart. Triggers
count tasks by status, so that totals cost the same however many tasks there were.
"""

MIGRATIONS = (
    """
    CREATE TABLE tasks(
        task_id INTEGER PRIMARY KEY,
        batch_id INTEGER NOT NULL,
        owner TEXT NOT NULL,
        status TEXT NOT NULL,
        desired TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        node TEXT,
        priority INTEGER NOT NULL,
        cores INTEGER NOT NULL,
        memory_bytes INTEGER NOT NULL,
        gpus TEXT NOT NULL,
        target TEXT,
        stdout_bytes INTEGER NOT NULL DEFAULT 0,
        stderr_bytes INTEGER NOT NULL DEFAULT 0,
        document TEXT NOT NULL);
    CREATE INDEX tasks_by_status ON tasks(status, task_id);
    CREATE INDEX tasks_by_owner ON tasks(owner, task_id);
    CREATE INDEX tasks_by_node ON tasks(node, task_id);
    CREATE INDEX tasks_by_batch ON tasks(batch_id);
    CREATE INDEX tasks_queued ON tasks(priority DESC, task_id, cores, memory_bytes, gpus, target)
        WHERE status = 'pending';
    CREATE INDEX tasks_live ON tasks(node, task_id, attempt, status, desired, priority, cores, memory_bytes, gpus)
        WHERE status IN ('assigning', 'running', 'paused', 'lost');
    CREATE INDEX tasks_to_order ON tasks(node, task_id, attempt, status, desired, priority, cores, memory_bytes, gpus)
        WHERE status = 'assigning' OR status = 'paused' OR (status = 'running' AND desired <> 'run');
    CREATE TABLE history(
        entry_id INTEGER PRIMARY KEY,
        task_id INTEGER NOT NULL REFERENCES tasks(task_id),
        document TEXT NOT NULL);
    CREATE INDEX history_by_task ON history(task_id, entry_id);
    CREATE TABLE submits(
        owner TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        request_digest TEXT NOT NULL,
        batch_id INTEGER NOT NULL,
        PRIMARY KEY(owner, idempotency_key)) WITHOUT ROWID;
    CREATE TABLE nodes(
        hostname TEXT PRIMARY KEY,
        document TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE facts(
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE counts(
        status TEXT PRIMARY KEY,
        tasks INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER tasks_counted AFTER INSERT ON tasks BEGIN
        INSERT INTO counts VALUES(new.status, 1) ON CONFLICT(status) DO UPDATE SET tasks = tasks + 1;
    END;
    CREATE TRIGGER tasks_recounted AFTER UPDATE OF status ON tasks WHEN old.status <> new.status BEGIN
        UPDATE counts SET tasks = tasks - 1 WHERE status = old.status;
        INSERT INTO counts VALUES(new.status, 1) ON CONFLICT(status) DO UPDATE SET tasks = tasks + 1;
    END;
    """,
)
