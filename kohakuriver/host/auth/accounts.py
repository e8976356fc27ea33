"""Accounts in memory: loaded at the start, changed only by what was committed, asked by every request.

So it takes microseconds to know a caller, and a token that was revoked is dead before the answer says that it was.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    """One account as it was at one commit; `user` is None when it is no more."""

    user_id: int
    user: UserRow | None
    tokens: tuple[TokenRow, ...]
    sessions: tuple[SessionRow, ...]


@dataclass(slots=True)
class Accounts:
    """All accounts, tokens and sessions by id."""

    db: Database
    clock: Clock
    users: dict[int, UserRow] = field(default_factory=dict)
    tokens: dict[int, TokenRow] = field(default_factory=dict)
    sessions: dict[int, SessionRow] = field(default_factory=dict)
    _logins: dict[int, set[tuple[Kind, int]]] = field(default_factory=dict)
    _used: dict[tuple[Kind, int], float] = field(default_factory=dict)
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

    def by_token(self, text: str, address: str) -> Caller | None:
        """Who speaks with this API token; None when it is not good (any more)."""
        named = credentials.read(text)
        row = self.tokens.get(named.number) if named and named.kind == Kind.TOKEN else None
        if not credentials.matches(text, row.digest if row else None):
            return None
        assert row is not None
        return self._speaking(Kind.TOKEN, row.token_id, address)

    def by_session(self, text: str, address: str) -> Caller | None:
        """Who speaks with this browser session; None when it is not good (any more)."""
        named = credentials.read(text)
        row = self.sessions.get(named.number) if named and named.kind == Kind.SESSION else None
        if not credentials.matches(text, row.digest if row else None):
            return None
        assert row is not None
        return self._speaking(Kind.SESSION, row.session_id, address)

    def still(self, caller: Caller) -> bool:
        """Whether a caller who was identified before may do as much, and sees as much, as he did then."""
        if not caller.user_id:
            return True
        now = self._caller(*_login_of(caller), caller.address)
        return now is not None and now.role >= caller.role and now.sees_all >= caller.sees_all

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
        now, used, self._used = self.clock.now(), self._used, {}

        def sweep(tx: sqlite3.Connection) -> Changed[None]:
            tokens.used(tx, [(at, number) for (kind, number), at in used.items() if kind is Kind.TOKEN])
            sessions.used(tx, [(at, number) for (kind, number), at in used.items() if kind is Kind.SESSION])
            gone = tokens.expired(tx, now) | sessions.expired(tx, now)
            tokens.sweep(tx, now)
            sessions.sweep(tx, now)
            touched = {self._user_of(kind, number) for kind, number in used}
            return Changed(None, frozenset(gone | touched) - {0})

        ends = [row.expires_at for row in self.tokens.values()] + [row.expires_at for row in self.sessions.values()]
        if used or any(end <= now for end in ends):
            await self.commit(sweep)

    def _speaking(self, kind: Kind, number: int, address: str) -> Caller | None:
        caller = self._caller(kind, number, address)
        if caller is not None:
            self._used[kind, number] = self.clock.now()
        return caller

    def _caller(self, kind: Kind, number: int, address: str) -> Caller | None:
        row: TokenRow | SessionRow | None = (self.tokens if kind is Kind.TOKEN else self.sessions).get(number)
        user = self.users.get(row.user_id) if row else None
        if row is None or user is None or user.disabled or row.expires_at <= self.clock.now():
            return None
        role = min(user.role, row.role) if isinstance(row, TokenRow) else user.role
        login = f"token:{number}" if kind is Kind.TOKEN else f"session:{number}"
        return Caller(user.name, role, user.user_id, login, address, user.role is Role.USER)

    def _user_of(self, kind: Kind, number: int) -> int:
        row: TokenRow | SessionRow | None = (self.tokens if kind is Kind.TOKEN else self.sessions).get(number)
        return row.user_id if row else 0

    def _take(self, known: Known) -> None:
        for kind, number in self._logins.pop(known.user_id, ()):
            (self.tokens if kind is Kind.TOKEN else self.sessions).pop(number, None)
        self.users.pop(known.user_id, None)
        if known.user is not None:
            self.users[known.user_id] = known.user
            self.tokens |= {row.token_id: row for row in known.tokens}
            self.sessions |= {row.session_id: row for row in known.sessions}
            self._logins[known.user_id] = {
                *((Kind.TOKEN, row.token_id) for row in known.tokens),
                *((Kind.SESSION, row.session_id) for row in known.sessions),
            }
        for caller, cut in list(self._watched.get(known.user_id, ())):
            if not self.still(caller):
                cut()


def _known(tx: sqlite3.Connection, user_id: int) -> Known:
    user = users.find(tx, user_id)
    return Known(user_id, user, tuple(tokens.of_user(tx, user_id)), tuple(sessions.of_user(tx, user_id)))


def _login_of(caller: Caller) -> tuple[Kind, int]:
    kind, _, number = caller.login.partition(":")
    return (Kind.TOKEN if kind == "token" else Kind.SESSION), int(number or 0)
