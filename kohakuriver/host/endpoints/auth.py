"""Logging in and out, registering, and one's own tokens and sessions."""

import asyncio
import sqlite3
from collections.abc import Callable

from kohakuriver.host.auth import credentials, invitations, logins
from kohakuriver.host.auth.accounts import Changed
from kohakuriver.host.auth.bootstrap import MASTER
from kohakuriver.host.auth.invitations import NOT_GOOD
from kohakuriver.host.auth.logins import DAY_SECONDS, HOUR_SECONDS, Span
from kohakuriver.host.auth.tickets import GOOD_SECONDS
from kohakuriver.host.endpoints.access import LOCAL
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, sessions, tokens, users
from kohakuriver.host.store import invitations as invitation_rows
from kohakuriver.host.store.audit import FAILED, Deed
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.ssh_keys import KeyRow
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.host.store.users import UserRow
from kohakuriver.model import auth_api as api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.auth_api import AuthStatus, LoggedIn, Me
from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed, NotFound, NotLoggedIn
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.browser import WithSession
from kohakuriver.wire.serve import on

Prove = Callable[[sqlite3.Connection], UserRow]
RESERVED = (MASTER, LOCAL, "host", "nobody", "system")
WRONG = "the user name or the password is wrong"


async def status(host: Host, caller: Caller, asked: Nothing) -> AuthStatus:
    return AuthStatus(
        auth_enabled=host.auth.enabled,
        needs_first_admin=host.auth.bootstrap.waits,
        name=caller.name,
        role=caller.role,
    )


async def me(host: Host, caller: Caller, asked: Nothing) -> Me:
    accounts = host.auth.accounts
    user, token, session = accounts.users.get(caller.user_id), accounts.token_of(caller), accounts.session_of(caller)
    login = token or session
    by = "token" if token else "session" if session else "secret" if caller.name == MASTER else "none"
    return Me(
        name=caller.name,
        role=caller.role,
        user_id=user.user_id if user else None,
        groups=list(user.groups) if user else [],
        by=by,
        expires_at=rfc3339(login.expires_at) if login else None,
        csrf_token=credentials.csrf_of(session.digest) if session else None,
    )


async def log_in(host: Host, caller: Caller, asked: api.LogIn) -> LoggedIn | WithSession[LoggedIn]:
    auth, name = host.auth, asked.username
    taken = auth.attempts.begin(caller.address, name)
    stored = await host.db.read(lambda tx: users.password_of(tx, name))
    if not await auth.passwords.verify(asked.password, stored):
        _note_failure(host, caller, name, "auth.login")
        raise NotLoggedIn(WRONG)
    auth.attempts.went_well(taken, caller.address, name)

    def prove(tx: sqlite3.Connection) -> UserRow:
        found = auth.accounts.named(name)
        if found is None or users.password_of(tx, name) != stored:
            raise NotLoggedIn(WRONG)  # it was changed, or he was locked out, while we compared
        return users.get(tx, found.user_id)

    return await _Begin(host, caller, asked.token_name).run(prove, "auth.login")


def _note_failure(host: Host, caller: Caller, name: str, action: str) -> None:
    """What is no name of ours is not written down: people type passwords there."""
    known = host.auth.accounts.named(name) is not None
    deed = Deed(action, f"user:{name}" if known else "", "wrong password" if known else "unknown name", FAILED)
    host.auth.notes.add(Caller("", Role.ANONY, address=caller.address), deed)


async def register(host: Host, caller: Caller, asked: api.Register) -> LoggedIn | WithSession[LoggedIn]:
    auth, bootstrap = host.auth, host.auth.bootstrap
    if asked.username in RESERVED:
        raise BadRequest(f"username: {asked.username} is a name that the host uses itself")
    taken = auth.attempts.begin(caller.address)
    try:
        await host.db.read(lambda tx: invitations.welcome(tx, asked.invitation, bootstrap, host.clock.now()))
    except NotAllowed:
        auth.notes.add(caller, Deed("auth.register", "", NOT_GOOD, FAILED))
        raise
    auth.attempts.went_well(taken, caller.address)
    password = await auth.passwords.hash(asked.password)

    def enrol(tx: sqlite3.Connection) -> UserRow:
        now = host.clock.now()
        welcome = invitations.welcome(tx, asked.invitation, bootstrap, now)
        user = UserRow(
            user_id=host.ids.next(),
            name=asked.username,
            role=welcome.role,
            disabled=False,
            created_at=now,
            groups=welcome.groups,
        )
        users.insert(tx, user, password)
        if welcome.invitation_id:
            invitation_rows.use(tx, welcome.invitation_id)
        return user

    begun = await _Begin(host, caller, asked.token_name).run(enrol, "auth.register")
    if bootstrap.waits:
        await asyncio.to_thread(bootstrap.close)
    return begun


class _Begin:
    """The end of a login and of a registration: a token or a session, in the transaction that lets him in."""

    def __init__(self, host: Host, caller: Caller, token_name: str | None) -> None:
        self._host, self._caller, self._token_name = host, caller, token_name
        self._login_id = host.ids.next()

    async def run(self, prove: Prove, action: str) -> LoggedIn | WithSession[LoggedIn]:
        """`prove` gives the account in the transaction, or raises."""

        def begin(tx: sqlite3.Connection) -> Changed[LoggedIn | WithSession[LoggedIn]]:
            user, now = prove(tx), self._host.clock.now()
            users.logged_in(tx, user.user_id, now)
            person = Caller(user.name, user.role, user.user_id, address=self._caller.address)
            audit.record(tx, person, Deed(action, f"user:{user.name}"), now)
            ended = self._end_old_session(tx)
            made = self._token(tx, user, now) if self._token_name else self._session(tx, user, now)
            return Changed(made, frozenset({user.user_id, *ended}))

        return await self._host.auth.accounts.commit(begin)

    def _end_old_session(self, tx: sqlite3.Connection) -> list[int]:
        """A session that came with the request does not outlive the login: nobody can have planted it."""
        old = self._host.auth.accounts.session_of(self._caller)
        if old is None or self._token_name:
            return []
        sessions.delete(tx, old.session_id)
        return [old.user_id]

    def _token(self, tx: sqlite3.Connection, user: UserRow, now: float) -> LoggedIn:
        span = Span(now, now + self._host.settings.token_expire_days * DAY_SECONDS)
        new = logins.new_token(self._login_id, user.user_id, self._token_name or "", user.role, span)
        logins.store_token(tx, new.row)
        return LoggedIn(
            name=user.name,
            role=user.role,
            expires_at=rfc3339(span.end),
            token=new.secret,
            token_id=new.row.token_id,
        )

    def _session(self, tx: sqlite3.Connection, user: UserRow, now: float) -> WithSession[LoggedIn]:
        seconds = self._host.settings.session_expire_hours * HOUR_SECONDS
        new = logins.new_session(self._login_id, user.user_id, self._caller.address, Span(now, now + seconds))
        logins.store_session(tx, new.row)
        told = LoggedIn(
            name=user.name,
            role=user.role,
            expires_at=rfc3339(now + seconds),
            csrf_token=credentials.csrf_of(new.row.digest),
        )
        return WithSession(told, new.secret, int(seconds))


async def log_out(host: Host, caller: Caller, asked: Nothing) -> WithSession[Nothing]:
    kind, _, number = caller.login.partition(":")
    if not number:
        raise Conflict("you are not logged in with a session or a token that could end")

    def end(tx: sqlite3.Connection) -> Changed[None]:
        (tokens if kind == "token" else sessions).delete(tx, int(number))
        audit.record(tx, caller, Deed("auth.logout", caller.login), host.clock.now())
        return Changed(None, frozenset({caller.user_id}))

    await host.auth.accounts.commit(end)
    return WithSession(Nothing(), "")


async def change_password(host: Host, caller: Caller, asked: api.ChangePassword) -> Nothing:
    auth = host.auth
    user = account_of(host, caller)
    taken = auth.attempts.begin(caller.address, user.name)
    stored = await host.db.read(lambda tx: users.password_of(tx, user.name))
    if not await auth.passwords.verify(asked.old_password, stored):
        auth.notes.add(caller, Deed("auth.password", f"user:{user.name}", "wrong old password", FAILED))
        raise NotAllowed("old_password: it is wrong")
    auth.attempts.went_well(taken, caller.address, user.name)
    password = await auth.passwords.hash(asked.new_password)
    session = auth.accounts.session_of(caller)

    def change(tx: sqlite3.Connection) -> Changed[None]:
        if users.password_of(tx, user.name) != stored:
            raise Conflict("the password was changed by another request")
        users.set_password(tx, user.user_id, password)
        sessions.delete_others(tx, user.user_id, session.session_id if session else 0)
        audit.record(tx, caller, Deed("auth.password", f"user:{user.name}"), host.clock.now())
        return Changed(None, frozenset({user.user_id}))

    await auth.accounts.commit(change)
    return Nothing()


def account_of(host: Host, caller: Caller) -> UserRow:
    user = host.auth.accounts.users.get(caller.user_id)
    if user is None:
        raise Conflict(f"{caller.name} has no account; log in with one: kohakuriver auth login")
    return user


async def ticket(host: Host, caller: Caller, asked: api.OpenSocket) -> api.Ticket:
    return api.Ticket(ticket=host.auth.tickets.give(caller, asked.path), expires_in_seconds=GOOD_SECONDS)


async def list_tokens(host: Host, caller: Caller, asked: api.WhoseLogins) -> list[api.TokenInfo]:
    whose, now = person_meant(host, caller, asked.user), host.clock.now()
    rows = [row for row in host.auth.accounts.tokens.values() if row.user_id == whose.user_id]
    return [
        api.TokenInfo(
            token_id=row.token_id,
            owner=whose.name,
            name=row.name,
            role=row.role,
            created_at=rfc3339(row.created_at),
            expires_at=rfc3339(row.expires_at),
            last_used_at=rfc3339(row.last_used_at) if row.last_used_at else None,
            current=caller.login == f"token:{row.token_id}",
        )
        for row in sorted(rows, key=lambda row: row.token_id)
        if row.expires_at > now
    ]


def person_meant(host: Host, caller: Caller, name: str | None) -> UserRow:
    """The account that is meant: the caller's own, or for admins anybody's; raises NotFound."""
    if name is None:
        return account_of(host, caller)
    user = host.auth.accounts.named(name)
    if user is None or (user.user_id != caller.user_id and caller.role is not Role.ADMIN):
        raise NotFound(f"user: there is no account {name}")
    return user


async def create_token(host: Host, caller: Caller, asked: api.CreateToken) -> api.CreatedToken:
    user, now = account_of(host, caller), host.clock.now()
    role = asked.role or caller.role
    if role > caller.role:
        raise NotAllowed(f"role: you are {caller.role.label} here, so a token of yours cannot be {role.label}")
    days = asked.expire_days or host.settings.token_expire_days
    new = logins.new_token(host.ids.next(), user.user_id, asked.name, role, Span(now, now + days * DAY_SECONDS))

    def create(tx: sqlite3.Connection) -> Changed[None]:
        logins.store_token(tx, new.row)
        deed = Deed("auth.token.create", f"token:{new.row.token_id}", f"{asked.name}, {role.label}, {days} days")
        audit.record(tx, caller, deed, now)
        return Changed(None, frozenset({user.user_id}))

    await host.auth.accounts.commit(create)
    return api.CreatedToken(
        token=new.secret,
        token_id=new.row.token_id,
        name=asked.name,
        role=role,
        expires_at=rfc3339(new.row.expires_at),
    )


async def revoke_token(host: Host, caller: Caller, asked: api.TokenId) -> Nothing:
    row, deed = host.auth.accounts.tokens[asked.token_id], Deed("auth.token.revoke", f"token:{asked.token_id}")
    return await end_login(host, caller, row, lambda tx: tokens.delete(tx, asked.token_id), deed)


async def end_login(
    host: Host,
    caller: Caller,
    row: TokenRow | SessionRow | KeyRow,
    delete: Callable[[sqlite3.Connection], None],
    deed: Deed,
) -> Nothing:
    """Take a login away; what lives by it ends at once."""

    def end(tx: sqlite3.Connection) -> Changed[None]:
        delete(tx)
        audit.record(tx, caller, deed, host.clock.now())
        return Changed(None, frozenset({row.user_id}))

    await host.auth.accounts.commit(end)
    return Nothing()


async def revoke_all_tokens(host: Host, caller: Caller, asked: api.WhoseLogins) -> api.Ended:
    whose = person_meant(host, caller, asked.user)

    def revoke(tx: sqlite3.Connection) -> Changed[int]:
        ended = tokens.delete_all(tx, whose.user_id)
        audit.record(
            tx, caller, Deed("auth.token.revoke-all", f"user:{whose.name}", f"{ended} tokens"), host.clock.now()
        )
        return Changed(ended, frozenset({whose.user_id}))

    return api.Ended(ended=await host.auth.accounts.commit(revoke))


async def list_sessions(host: Host, caller: Caller, asked: api.WhoseLogins) -> list[api.SessionInfo]:
    whose, now = person_meant(host, caller, asked.user), host.clock.now()
    rows = [row for row in host.auth.accounts.sessions.values() if row.user_id == whose.user_id]
    return [
        api.SessionInfo(
            session_id=row.session_id,
            owner=whose.name,
            address=row.address,
            created_at=rfc3339(row.created_at),
            expires_at=rfc3339(row.expires_at),
            last_used_at=rfc3339(row.last_used_at) if row.last_used_at else None,
            current=caller.login == f"session:{row.session_id}",
        )
        for row in sorted(rows, key=lambda row: row.session_id)
        if row.expires_at > now
    ]


async def end_session(host: Host, caller: Caller, asked: api.SessionId) -> Nothing:
    row, deed = host.auth.accounts.sessions[asked.session_id], Deed("auth.session.end", f"session:{asked.session_id}")
    return await end_login(host, caller, row, lambda tx: sessions.delete(tx, asked.session_id), deed)


ANSWERS = [
    on(api.STATUS, status),
    on(api.ME, me),
    on(api.LOGIN, log_in),
    on(api.LOGOUT, log_out),
    on(api.REGISTER, register),
    on(api.PASSWORD_CHANGE, change_password),
    on(api.TICKET, ticket),
    on(api.TOKEN_LIST, list_tokens),
    on(api.TOKEN_CREATE, create_token),
    on(api.TOKEN_REVOKE, revoke_token),
    on(api.TOKEN_REVOKE_ALL, revoke_all_tokens),
    on(api.SESSION_LIST, list_sessions),
    on(api.SESSION_END, end_session),
]
