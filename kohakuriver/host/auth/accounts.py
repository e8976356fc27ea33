"""Accounts in memory: loaded at the start, changed only by what was committed, asked by every request.

So it takes microseconds to know a caller, and a token that was revoked is dead before the answer says that it was.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from kohakuriver.host.auth import credentials
from kohakuriver.host.auth.credentials import Kind
from kohakuriver.host.store import sessions, tokens, users
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.host.store.users import UserRow
from kohakuriver.model.access import Caller, Role
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

T = TypeVar("T")
Cut = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """What a unit of work made, and whose accounts it changed."""

    made: T
    user_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """One account as it was at one commit; `user` is None when it is no more, and then the rest is empty."""

    user_id: int
    user: UserRow | None
    tokens: tuple[TokenRow, ...]
    sessions: tuple[SessionRow, ...]

    @property
    def rows(self) -> list[TokenRow | SessionRow]:
        return [*self.tokens, *self.sessions]


@dataclass(slots=True)
class Login:
    """One token or session, ready to be recognized; `caller` is whom it made of the last request."""

    row: TokenRow | SessionRow
    caller: Caller
    csrf_token: str = ""
    used_at: float | None = None


@dataclass(slots=True)
class Accounts:
    """All accounts, tokens and sessions by id, and all logins that are good by the digests of their secrets."""

    db: Database
    clock: Clock
    users: dict[int, UserRow] = field(default_factory=dict)
    tokens: dict[int, TokenRow] = field(default_factory=dict)
    sessions: dict[int, SessionRow] = field(default_factory=dict)
    _known: dict[int, Known] = field(default_factory=dict, repr=False)
    _logins: dict[bytes, Login] = field(default_factory=dict, repr=False)
    _watched: dict[int, set[tuple[Caller, Cut]]] = field(default_factory=dict)

    async def load(self) -> None:
        """Take over all that the store has."""

        def everything(tx: sqlite3.Connection) -> list[Known]:
            return [_known(tx, user.user_id) for user in users.every(tx)]

        for known in await self.db.read(everything):
            self._take(known)

    async def commit(self, work: Callable[[sqlite3.Connection], Changed[T]]) -> T:
        """Run `work` in a transaction and then take over what it changed; a caller who leaves meanwhile stops neither."""

        def transaction(tx: sqlite3.Connection) -> tuple[T, list[Known]]:
            changed = work(tx)
            return changed.made, [_known(tx, user_id) for user_id in changed.user_ids]

        async def both() -> T:
            made, found = await self.db.write(transaction)
            for known in found:
                self._take(known)
            return made

        return await asyncio.shield(both())

    def recognize(self, secret: str, kind: type[TokenRow] | type[SessionRow], address: str) -> Login | None:
        """The login behind the secret of a token or a session; None when it is not good (any more).

        Whoever could steer the digest that is looked up could undo SHA3, so the look-up need not take constant time.
        """
        login = self._logins.get(credentials.digest_of(secret))
        if login is None or type(login.row) is not kind:
            return None
        now = self.clock.now()
        if login.row.expires_at <= now:
            return None
        login.used_at = now
        if login.caller.address != address:
            login.caller = replace(login.caller, address=address)
        return login

    def still(self, caller: Caller) -> bool:
        """Whether a caller who was identified before may do as much, and sees as much, as he did then."""
        if not caller.user_id:
            return True
        row = self.token_of(caller) or self.session_of(caller)
        login = self._logins.get(row.digest) if row else None
        if login is None or login.row.expires_at <= self.clock.now():
            return False
        return login.caller.role >= caller.role and login.caller.sees_all >= caller.sees_all

    def token_of(self, caller: Caller) -> TokenRow | None:
        """The API token by which a caller speaks, if it is one."""
        kind, number = _login_of(caller)
        return self.tokens.get(number) if kind is Kind.TOKEN else None

    def session_of(self, caller: Caller) -> SessionRow | None:
        """The browser session by which a caller speaks, if it is one."""
        kind, number = _login_of(caller)
        return self.sessions.get(number) if kind is Kind.SESSION else None

    def named(self, name: str) -> UserRow | None:
        """The account of that name."""
        return next((user for user in self.users.values() if user.name == name), None)

    @contextmanager
    def watch(self, caller: Caller, cut: Cut) -> Iterator[None]:
        """While the block runs, call `cut` as soon as the caller may no longer do what he could when it began."""
        if not caller.user_id:
            yield
            return
        entry = (caller, cut)
        watchers = self._watched.setdefault(caller.user_id, set())
        watchers.add(entry)
        try:
            if not self.still(caller):
                cut()
            yield
        finally:
            watchers.discard(entry)
            if not watchers:
                self._watched.pop(caller.user_id, None)

    async def keep_up(self) -> None:
        """Write down what was used since the last time, and end what has run out."""
        now = self.clock.now()
        used = [login for login in self._logins.values() if login.used_at is not None]

        def sweep(tx: sqlite3.Connection) -> Changed[None]:
            for login in used:
                _write_down_use(tx, login)
            gone = tokens.expired(tx, now) | sessions.expired(tx, now)
            tokens.sweep(tx, now)
            sessions.sweep(tx, now)
            return Changed(None, frozenset(gone | {login.row.user_id for login in used}))

        ends = [row.expires_at for known in self._known.values() for row in known.rows]
        if used or any(end <= now for end in ends):
            await self.commit(sweep)

    def _take(self, known: Known) -> None:
        """Forget what was known of the account, and learn what is."""
        before = self._known.pop(known.user_id, None)
        if before is not None:
            for token in before.tokens:
                del self.tokens[token.token_id]
                self._logins.pop(token.digest, None)
            for session in before.sessions:
                del self.sessions[session.session_id]
                self._logins.pop(session.digest, None)
            self.users.pop(known.user_id, None)
        if known.user is not None:
            self._known[known.user_id] = known
            self.users[known.user_id] = known.user
            self.tokens |= {row.token_id: row for row in known.tokens}
            self.sessions |= {row.session_id: row for row in known.sessions}
            if not known.user.disabled:
                self._logins |= {row.digest: _login(known.user, row) for row in known.rows}
        for caller, cut in list(self._watched.get(known.user_id, ())):
            if not self.still(caller):
                cut()


def _known(tx: sqlite3.Connection, user_id: int) -> Known:
    user = users.find(tx, user_id)
    if user is None:
        return Known(user_id, None, (), ())
    return Known(user_id, user, tuple(tokens.of_user(tx, user_id)), tuple(sessions.of_user(tx, user_id)))


def _login(user: UserRow, row: TokenRow | SessionRow) -> Login:
    """What a token or a session is good for, with what its owner is now."""
    own_only = user.role is Role.USER
    if isinstance(row, TokenRow):
        return Login(
            row, Caller(user.name, min(user.role, row.role), user.user_id, f"token:{row.token_id}", "", own_only)
        )
    caller = Caller(user.name, user.role, user.user_id, f"session:{row.session_id}", "", own_only)
    return Login(row, caller, credentials.csrf_of(row.digest))


def _write_down_use(tx: sqlite3.Connection, login: Login) -> None:
    at = login.used_at or 0.0
    if isinstance(login.row, TokenRow):
        tokens.used(tx, login.row.token_id, at)
    else:
        sessions.used(tx, login.row.session_id, at)


def _login_of(caller: Caller) -> tuple[Kind, int]:
    kind, _, number = caller.login.partition(":")
    return (Kind.TOKEN if kind == "token" else Kind.SESSION), int(number or 0)
