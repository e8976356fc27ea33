"""Rows of invitations: only the digest of each code is kept."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.model import codec
from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotFound

COLUMNS = "invitation_id, digest, role, groups_json, uses, uses_left, created_by, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation; times are UTC unix seconds."""

    invitation_id: Snowflake
    digest: bytes
    role: Role
    groups: tuple[str, ...]
    uses: int
    uses_left: int
    created_by: str
    created_at: float
    expires_at: float


def insert(tx: sqlite3.Connection, invitation: InvitationRow) -> None:
    """A new invitation."""
    values = (
        invitation.invitation_id,
        invitation.digest,
        invitation.role.label,
        codec.dumps(list(invitation.groups)),
        invitation.uses,
        invitation.uses_left,
        invitation.created_by,
        invitation.created_at,
        invitation.expires_at,
    )
    tx.execute(f"INSERT INTO invitations({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def find(tx: sqlite3.Connection, invitation_id: int, now: float) -> InvitationRow | None:
    """The invitation, if it can still be used."""
    query = f"SELECT {COLUMNS} FROM invitations WHERE invitation_id = ? AND uses_left > 0 AND expires_at > ?"
    row = tx.execute(query, (invitation_id, now)).fetchone()
    return None if row is None else _invitation(row)


def use(tx: sqlite3.Connection, invitation_id: int) -> None:
    """Take one use of an invitation that was found in this transaction."""
    tx.execute("UPDATE invitations SET uses_left = uses_left - 1 WHERE invitation_id = ?", (invitation_id,))


def every(tx: sqlite3.Connection, now: float) -> list[InvitationRow]:
    """All that can still be used, oldest first."""
    query = f"SELECT {COLUMNS} FROM invitations WHERE uses_left > 0 AND expires_at > ? ORDER BY invitation_id"
    return [_invitation(row) for row in tx.execute(query, (now,))]


def delete(tx: sqlite3.Connection, invitation_id: int) -> None:
    """Take one back; raises NotFound."""
    if tx.execute("DELETE FROM invitations WHERE invitation_id = ?", (invitation_id,)).rowcount == 0:
        raise NotFound(f"there is no invitation {invitation_id}")


def delete_of(tx: sqlite3.Connection, created_by: str) -> None:
    """Take back all that somebody gave."""
    tx.execute("DELETE FROM invitations WHERE created_by = ?", (created_by,))


def sweep(tx: sqlite3.Connection, now: float) -> None:
    """Forget those that cannot be used any more."""
    tx.execute("DELETE FROM invitations WHERE expires_at <= ? OR uses_left = 0", (now,))


def _invitation(row: sqlite3.Row) -> InvitationRow:
    return InvitationRow(row[0], row[1], Role[row[2].upper()], tuple(codec.loads(row[3])), *row[4:])
