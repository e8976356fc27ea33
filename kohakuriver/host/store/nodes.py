"""Rows of nodes: what was registered, and whether an admin drains it."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model import codec
from kohakuriver.model.errors import NotFound
from kohakuriver.model.node import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """What outlives a restart of the host."""

    hostname: str
    url: str
    version: str
    engine: str
    engine_version: str
    machine: Machine
    registered_at: str
    draining: bool = False
    drain_reason: str = ""
    tls_fingerprint: str = ""


def save(tx: sqlite3.Connection, node: NodeRow) -> None:
    """Insert or replace a node."""
    tx.execute(
        "INSERT INTO nodes VALUES(?, ?) ON CONFLICT(hostname) DO UPDATE SET document = excluded.document",
        (node.hostname, codec.encode_text(node)),
    )


def find(tx: sqlite3.Connection, hostname: str) -> NodeRow | None:
    """The node, if it is registered."""
    row = tx.execute("SELECT document FROM nodes WHERE hostname = ?", (hostname,)).fetchone()
    return None if row is None else _node(row)


def get(tx: sqlite3.Connection, hostname: str) -> NodeRow:
    """The node; raises NotFound."""
    found = find(tx, hostname)
    if found is None:
        raise NotFound(f"there is no node {hostname}")
    return found


def every(tx: sqlite3.Connection) -> list[NodeRow]:
    """All nodes by name."""
    return [_node(row) for row in tx.execute("SELECT document FROM nodes ORDER BY hostname")]


def delete(tx: sqlite3.Connection, hostname: str) -> None:
    """Forget a node."""
    tx.execute("DELETE FROM nodes WHERE hostname = ?", (hostname,))


def _node(row: sqlite3.Row) -> NodeRow:
    return codec.decode(NodeRow, codec.loads(row[0]), strict=False)
