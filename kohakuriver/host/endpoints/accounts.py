"""What admins do with accounts, groups and invitations (operators: with invitations of viewers)."""

import sqlite3

from kohakuriver.host.auth import credentials, invitations
from kohakuriver.host.auth.accounts import Changed
from kohakuriver.host.auth.credentials import Kind
from kohakuriver.host.auth.logins import HOUR_SECONDS
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, groups, sessions, ssh_keys, tokens, users
from kohakuriver.host.store import invitations as invitation_rows
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.invitations import InvitationRow
from kohakuriver.host.store.users import UserRow
from kohakuriver.model import auth_api as api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.serve import on


async def list_users(host: Host, caller: Caller, asked: Nothing) -> list[api.Account]:
    return [_account(user) for user in await host.db.read(users.every)]


def _account(user: UserRow) -> api.Account:
    return api.Account(
        user_id=user.user_id,
        name=user.name,
        role=user.role,
        groups=list(user.groups),
        disabled=user.disabled,
        created_at=rfc3339(user.created_at),
        last_login_at=rfc3339(user.last_login_at) if user.last_login_at else None,
    )


async def change_user(host: Host, caller: Caller, asked: api.ChangeAccount) -> api.Account:
    password = await host.auth.passwords.hash(asked.password) if asked.password is not None else None

    def change(tx: sqlite3.Connection) -> Changed[UserRow]:
        user = users.get(tx, asked.user_id)
        if asked.role is not None:
            users.set_role(tx, user.user_id, asked.role)
        if asked.disabled is not None:
            users.set_disabled(tx, user.user_id, asked.disabled)
        if asked.groups is not None:
            users.set_groups(tx, user.user_id, tuple(asked.groups))
        if password is not None:
            users.set_password(tx, user.user_id, password)
        changed = users.get(tx, user.user_id)
        _refuse_to_lose_the_last_admin(tx, user)
        if password is not None or changed.disabled or changed.role is not user.role:
            sessions.delete_others(tx, user.user_id)  # whoever logs in again gets a new one, with what he is now
        if changed.disabled or changed.role < user.role:
            invitation_rows.delete_of(tx, user.name)
        audit.record(tx, caller, Deed("auth.user.set", f"user:{user.name}", _told(asked)), host.clock.now())
        return Changed(changed, frozenset({user.user_id}))

    return _account(await host.auth.accounts.commit(change))


def _told(asked: api.ChangeAccount) -> str:
    """What was changed, for the trail."""
    parts = [
        f"role={asked.role.label}" if asked.role is not None else "",
        f"disabled={asked.disabled}".lower() if asked.disabled is not None else "",
        f"groups={','.join(asked.groups) or 'none'}" if asked.groups is not None else "",
        "a new password" if asked.password is not None else "",
    ]
    return " ".join(part for part in parts if part)


def _refuse_to_lose_the_last_admin(tx: sqlite3.Connection, before: UserRow) -> None:
    if before.role is Role.ADMIN and not before.disabled and users.admins(tx) == 0:
        raise Conflict(f"{before.name} is the last admin who can log in; make somebody else admin first")


async def delete_user(host: Host, caller: Caller, asked: api.UserId) -> Nothing:
    def delete(tx: sqlite3.Connection) -> Changed[None]:
        user, now = users.get(tx, asked.user_id), host.clock.now()
        users.delete(tx, user.user_id, now)
        _refuse_to_lose_the_last_admin(tx, user)
        tokens.delete_all(tx, user.user_id)
        ssh_keys.delete_all(tx, user.user_id)
        sessions.delete_others(tx, user.user_id)
        invitation_rows.delete_of(tx, user.name)
        audit.record(tx, caller, Deed("auth.user.delete", f"user:{user.name}"), now)
        return Changed(None, frozenset({user.user_id}))

    await host.auth.accounts.commit(delete)
    return Nothing()


async def list_groups(host: Host, caller: Caller, asked: Nothing) -> list[api.Group]:
    """Those who see only their own see only the groups they are in."""
    found = await host.db.read(groups.every)
    return [group for group in found if caller.sees_all or caller.name in group.members]


async def set_group(host: Host, caller: Caller, asked: api.SetGroup) -> api.Group:
    def change(tx: sqlite3.Connection) -> api.Group:
        groups.save(tx, asked.group, asked)
        limits = [f"{name}={getattr(asked, name)}" for name in groups.LIMITS if getattr(asked, name) is not None]
        audit.record(tx, caller, Deed("auth.group.set", f"group:{asked.group}", " ".join(limits)), host.clock.now())
        return groups.get(tx, asked.group)

    made = await host.db.write(change)
    host.dispatch.wake.set()
    return made


async def delete_group(host: Host, caller: Caller, asked: api.GroupName) -> Nothing:
    def delete(tx: sqlite3.Connection) -> None:
        groups.delete(tx, asked.group)
        audit.record(tx, caller, Deed("auth.group.delete", f"group:{asked.group}"), host.clock.now())

    await host.db.write(delete)
    return Nothing()


async def invite(host: Host, caller: Caller, asked: api.Invite) -> api.Invited:
    invitations.check_inviter(caller, asked)
    now, number = host.clock.now(), host.ids.next()
    code = credentials.make(Kind.INVITATION, number)
    hours = asked.expire_hours or host.settings.invitation_expire_hours
    row = InvitationRow(
        invitation_id=number,
        digest=credentials.digest_of(code),
        role=asked.role,
        groups=tuple(asked.groups),
        uses=asked.uses,
        uses_left=asked.uses,
        created_by=caller.name,
        created_at=now,
        expires_at=now + hours * HOUR_SECONDS,
    )

    def create(tx: sqlite3.Connection) -> None:
        for group in asked.groups:
            groups.get(tx, group)
        invitation_rows.insert(tx, row)
        detail = f"role={asked.role.label} uses={asked.uses} hours={hours} groups={','.join(asked.groups) or 'none'}"
        audit.record(tx, caller, Deed("auth.invite.create", f"invitation:{number}", detail), now)

    await host.db.write(create)
    return api.Invited(code=code, invitation=_invitation(row))


async def list_invitations(host: Host, caller: Caller, asked: Nothing) -> list[api.Invitation]:
    """Admins see all, operators their own."""
    rows = await host.db.read(lambda tx: invitation_rows.every(tx, host.clock.now()))
    return [_invitation(row) for row in rows if _is_his(row, caller)]


def _is_his(row: InvitationRow, caller: Caller) -> bool:
    return caller.role is Role.ADMIN or row.created_by == caller.name


def _invitation(row: InvitationRow) -> api.Invitation:
    return api.Invitation(
        invitation_id=row.invitation_id,
        role=row.role,
        groups=list(row.groups),
        uses=row.uses,
        uses_left=row.uses_left,
        created_by=row.created_by,
        created_at=rfc3339(row.created_at),
        expires_at=rfc3339(row.expires_at),
    )


async def revoke_invitation(host: Host, caller: Caller, asked: api.InvitationId) -> Nothing:
    def revoke(tx: sqlite3.Connection) -> None:
        row = invitation_rows.find(tx, asked.invitation_id, host.clock.now())
        if row is None or not _is_his(row, caller):
            raise NotFound(f"there is no invitation {asked.invitation_id}")
        invitation_rows.delete(tx, asked.invitation_id)
        audit.record(tx, caller, Deed("auth.invite.revoke", f"invitation:{asked.invitation_id}"), host.clock.now())

    await host.db.write(revoke)
    return Nothing()


ANSWERS = [
    on(api.USER_LIST, list_users),
    on(api.USER_SET, change_user),
    on(api.USER_DELETE, delete_user),
    on(api.GROUP_LIST, list_groups),
    on(api.GROUP_SET, set_group),
    on(api.GROUP_DELETE, delete_group),
    on(api.INVITE_LIST, list_invitations),
    on(api.INVITE_CREATE, invite),
    on(api.INVITE_REVOKE, revoke_invitation),
]
