"""Single facts about the cluster, by name."""

import secrets
import sqlite3


def cluster_id(tx: sqlite3.Connection) -> str:
    """The cluster's id, drawn at the first start."""
    tx.execute("INSERT OR IGNORE INTO facts VALUES('cluster_id', ?)", (secrets.token_hex(8),))
    return str(tx.execute("SELECT value FROM facts WHERE name = 'cluster_id'").fetchone()[0])


def ping(tx: sqlite3.Connection) -> None:
    """Prove that the store answers."""
    tx.execute("SELECT 1").fetchone()
