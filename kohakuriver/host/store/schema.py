"""The host's schema: a list of migrations that only grows.

A task is one JSON document, ready to be sent; the columns beside it are what queries need, written from the same value
by the same statement (`tasks.save`). Output sizes change while the document does not, so they stand apart. Triggers
count tasks by status, so that totals cost the same however many tasks there were.

Secret values of a task's environment stand apart from its document, so that no answer can hold them, and go when the
task has ended. What changed is told anew in `changes`, of which only the newest are kept. Keys of runners are not here
at all, only what they are made of besides the host's master key. The trail only grows: the one thing
that may be taken from it is what lies before its horizon.
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
    """
    CREATE TABLE users(
        user_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        disabled INTEGER NOT NULL,
        password TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_login_at REAL,
        deleted_at REAL);
    CREATE TABLE user_groups(
        name TEXT PRIMARY KEY,
        max_queued INTEGER,
        max_running INTEGER,
        max_vps INTEGER,
        max_cores INTEGER,
        max_gpus INTEGER,
        max_memory_bytes INTEGER) WITHOUT ROWID;
    CREATE TABLE members(
        user_id INTEGER NOT NULL REFERENCES users(user_id),
        group_name TEXT NOT NULL REFERENCES user_groups(name),
        PRIMARY KEY(user_id, group_name)) WITHOUT ROWID;
    CREATE INDEX members_by_group ON members(group_name);
    CREATE TABLE tokens(
        token_id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users(user_id),
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        last_used_at REAL);
    CREATE INDEX tokens_by_user ON tokens(user_id);
    CREATE TABLE sessions(
        session_id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users(user_id),
        address TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        last_used_at REAL);
    CREATE INDEX sessions_by_user ON sessions(user_id);
    CREATE TABLE invitations(
        invitation_id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,
        role TEXT NOT NULL,
        groups_json TEXT NOT NULL,
        uses INTEGER NOT NULL,
        uses_left INTEGER NOT NULL CHECK(uses_left >= 0),
        created_by TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL);
    CREATE TABLE audit(
        entry_id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        user TEXT NOT NULL,
        action TEXT NOT NULL,
        object TEXT NOT NULL,
        address TEXT NOT NULL,
        result TEXT NOT NULL,
        detail TEXT NOT NULL);
    CREATE INDEX audit_by_time ON audit(at);
    CREATE INDEX audit_by_user ON audit(user, entry_id);
    CREATE INDEX audit_by_object ON audit(object, entry_id);
    CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit BEGIN
        SELECT raise(ABORT, 'the trail is never changed');
    END;
    CREATE TRIGGER audit_loses_only_its_old_end BEFORE DELETE ON audit
        WHEN old.entry_id >= coalesce((SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'audit_horizon'), 0) BEGIN
        SELECT raise(ABORT, 'the trail is never cut but at its old end');
    END;
    CREATE TABLE task_secrets(
        task_id INTEGER PRIMARY KEY REFERENCES tasks(task_id),
        document TEXT NOT NULL);
    CREATE TRIGGER task_secrets_end_with_the_task AFTER UPDATE OF status ON tasks
        WHEN new.status IN ('rejected', 'completed', 'failed', 'killed', 'killed_oom') BEGIN
        DELETE FROM task_secrets WHERE task_id = new.task_id;
    END;
    CREATE INDEX tasks_waiting_by_owner ON tasks(owner) WHERE status IN ('pending_approval', 'pending');
    DROP INDEX tasks_queued;
    CREATE INDEX tasks_queued ON tasks(priority DESC, task_id, cores, memory_bytes, gpus, target, owner, status)
        WHERE status = 'pending';
    """,
    """
    CREATE TABLE join_tokens(
        join_id INTEGER PRIMARY KEY,
        node TEXT,
        uses INTEGER NOT NULL,
        uses_left INTEGER NOT NULL CHECK(uses_left >= 0),
        created_by TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL);
    CREATE TABLE runner_keys(
        hostname TEXT PRIMARY KEY,
        join_id INTEGER NOT NULL,
        runner_nonce TEXT NOT NULL,
        host_nonce TEXT NOT NULL,
        revoked INTEGER NOT NULL,
        joined_at REAL NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE ssh_keys(
        key_id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users(user_id),
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        public_key TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL,
        UNIQUE(user_id, public_key));
    """,
    """
    CREATE TABLE image_jobs(
        job_id INTEGER PRIMARY KEY,
        environment TEXT NOT NULL,
        state TEXT NOT NULL,
        document TEXT NOT NULL);
    """,
    """
    ALTER TABLE tasks ADD COLUMN task_type TEXT NOT NULL DEFAULT 'command';
    ALTER TABLE tasks ADD COLUMN name TEXT;
    CREATE INDEX vps_by_id ON tasks(task_id) WHERE task_type = 'vps';
    CREATE INDEX vps_to_delete ON tasks(task_id) WHERE status = 'stopped' AND desired = 'kill';
    CREATE UNIQUE INDEX vps_names ON tasks(owner, name) WHERE task_type = 'vps'
        AND status IN ('pending', 'assigning', 'running', 'paused', 'lost', 'stopped');
    CREATE TABLE assignments(
        task_id INTEGER NOT NULL REFERENCES tasks(task_id),
        user_id INTEGER NOT NULL REFERENCES users(user_id),
        assigned_by TEXT NOT NULL,
        assigned_at REAL NOT NULL,
        PRIMARY KEY(task_id, user_id)) WITHOUT ROWID;
    CREATE INDEX assignments_by_user ON assignments(user_id);
    """,
    """
    CREATE TABLE task_logins(
        task_id INTEGER PRIMARY KEY REFERENCES tasks(task_id),
        login TEXT NOT NULL);
    CREATE TRIGGER task_logins_end_when_the_task_runs AFTER UPDATE OF status ON tasks
        WHEN new.status NOT IN ('pending_approval', 'pending', 'assigning', 'lost') BEGIN
        DELETE FROM task_logins WHERE task_id = new.task_id;
    END;
    """,
    """
    CREATE TABLE overlay_allocations(
        number INTEGER PRIMARY KEY,
        hostname TEXT NOT NULL UNIQUE,
        machine TEXT NOT NULL,
        used_at REAL NOT NULL);
    CREATE TABLE overlay_addresses(
        address INTEGER PRIMARY KEY,
        number INTEGER NOT NULL,
        owner TEXT NOT NULL,
        is_reserved INTEGER NOT NULL,
        task_id INTEGER REFERENCES tasks(task_id),
        expires_at INTEGER);
    CREATE INDEX overlay_addresses_by_runner ON overlay_addresses(number);
    CREATE INDEX overlay_addresses_by_owner ON overlay_addresses(owner) WHERE is_reserved;
    CREATE UNIQUE INDEX overlay_addresses_by_task ON overlay_addresses(task_id) WHERE task_id IS NOT NULL;
    CREATE INDEX overlay_addresses_expiring ON overlay_addresses(expires_at) WHERE expires_at IS NOT NULL;
    CREATE TRIGGER overlay_addresses_end_with_the_task AFTER UPDATE OF status ON tasks
        WHEN new.status IN ('rejected', 'completed', 'failed', 'killed', 'killed_oom') BEGIN
        DELETE FROM overlay_addresses WHERE task_id = new.task_id;
    END;
    CREATE TRIGGER overlay_addresses_stay_on_their_node AFTER UPDATE OF status ON tasks
        WHEN new.status = 'pending' AND new.task_type <> 'vps' BEGIN
        DELETE FROM overlay_addresses WHERE task_id = new.task_id AND NOT is_reserved;
    END;
    CREATE TABLE gangs(
        task_id INTEGER PRIMARY KEY REFERENCES tasks(task_id),
        gang INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        size INTEGER NOT NULL,
        stops_together INTEGER NOT NULL);
    CREATE INDEX gangs_by_gang ON gangs(gang, rank);
    """,
    """
    ALTER TABLE tasks ADD COLUMN store TEXT;
    """,
    """
    CREATE TABLE changes(
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        owner TEXT NOT NULL,
        entry TEXT NOT NULL);
    CREATE TRIGGER changes_are_kept_for_a_while AFTER INSERT ON changes BEGIN
        DELETE FROM changes WHERE seq <= new.seq - 50000;
    END;
    CREATE TRIGGER history_is_a_change AFTER INSERT ON history BEGIN
        INSERT INTO changes(kind, name, owner, entry)
        SELECT iif(task_type = 'vps', 'vps', 'task'), CAST(task_id AS TEXT), owner, new.document
        FROM tasks WHERE task_id = new.task_id;
    END;
    CREATE TRIGGER image_jobs_are_changes AFTER INSERT ON image_jobs BEGIN
        INSERT INTO changes(kind, name, owner, entry) VALUES('environment', new.environment, '', new.document);
    END;
    """,
    """
    ALTER TABLE runner_keys ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
    CREATE TABLE former_runner_keys(
        hostname TEXT PRIMARY KEY,
        join_id INTEGER NOT NULL,
        runner_nonce TEXT NOT NULL,
        host_nonce TEXT NOT NULL,
        revoked INTEGER NOT NULL,
        joined_at REAL NOT NULL,
        sealed TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE overlay_owners(
        tag INTEGER PRIMARY KEY,
        owner TEXT NOT NULL UNIQUE);
    """,
    """
    CREATE TABLE image_job_logins(
        job_id INTEGER PRIMARY KEY,
        login TEXT NOT NULL);
    CREATE TRIGGER image_job_logins_end_with_the_job AFTER INSERT ON image_jobs
        WHEN new.state IN ('done', 'failed') BEGIN
        DELETE FROM image_job_logins WHERE job_id = new.job_id;
    END;
    """,
)
