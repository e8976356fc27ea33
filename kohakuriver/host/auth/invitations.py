"""Invitations: who may invite whom, and what a code is good for."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.host.auth import credentials
from kohakuriver.host.auth.bootstrap import Bootstrap
from kohakuriver.host.auth.credentials import Kind
from kohakuriver.host.store import groups, invitations, users
from kohakuriver.host.store.invitations import InvitationRow
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.auth_api import Invite
from kohakuriver.model.errors import NotAllowed

NOT_GOOD = "invitation: it is not good (any more)"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What somebody who registers becomes; `invitation_id` is 0 for the first admin."""

    role: Role
    groups: tuple[str, ...] = ()
    invitation_id: int = 0


def check_inviter(caller: Caller, asked: Invite) -> None:
    """Raise NotAllowed unless he may invite such a person: admins anyone, operators viewers without a group."""
    if caller.role is Role.ADMIN:
        return
    if asked.role is not Role.VIEWER:
        raise NotAllowed(f"role: an {caller.role.label} may invite viewers only")
    if asked.groups:
        raise NotAllowed("groups: only admins put people into groups")


def welcome(tx: sqlite3.Connection, code: str, bootstrap: Bootstrap, now: float) -> Welcome:
    """What a code makes of somebody; raises NotAllowed when it is not good."""
    if bootstrap.lets_register(code) and not users.were_there_any(tx):
        return Welcome(Role.ADMIN)
    row = _find(tx, code, now)
    if row is None:
        raise NotAllowed(NOT_GOOD)
    there = groups.names(tx)
    return Welcome(row.role, tuple(name for name in row.groups if name in there), row.invitation_id)


def _find(tx: sqlite3.Connection, code: str, now: float) -> InvitationRow | None:
    named = credentials.read(code)
    row = invitations.find(tx, named.number, now) if named and named.kind == Kind.INVITATION else None
    return row if credentials.matches(code, row.digest if row else None) else None
