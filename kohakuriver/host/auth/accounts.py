"""Accounts in memory: loaded at the start, changed only by what was committed, asked by every request.

So it takes microseconds to know a caller, and a token that was revoked is dead before the answer says that it was.
"""

import asyncio
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from kohakuriver.host.auth import credentials
from kohakuriver.host.store import sessions, ssh_keys, tokens, users
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.ssh_keys import KeyRow
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
    keys: tuple[KeyRow, ...] = ()

    @property
    def rows(self) -> list[TokenRow | SessionRow | KeyRow]:
        return [*self.tokens, *self.sessions, *self.keys]


@dataclass(slots=True)
class Login:
    """One token, session or key, ready to be recognized; `caller` is whom it made of the last request."""

    row: TokenRow | SessionRow | KeyRow
    caller: Caller
    csrf_token: str = ""
    used_at: float | None = None

    @property
    def expires_at(self) -> float:
        """When it runs out (UTC unix seconds); a key does not."""
        return math.inf if isinstance(self.row, KeyRow) else self.row.expires_at


@dataclass(slots=True)
class Accounts:
    """All accounts, tokens, sessions and keys by id, and all logins that are good.

    Those with a secret are found by its digest, and each by what a caller says of it (`token:ID`).
    """

    db: Database
    clock: Clock
    users: dict[int, UserRow] = field(default_factory=dict)
    tokens: dict[int, TokenRow] = field(default_factory=dict)
    sessions: dict[int, SessionRow] = field(default_factory=dict)
    keys: dict[int, KeyRow] = field(default_factory=dict)
    _known: dict[int, Known] = field(default_factory=dict, repr=False)
    _secret: dict[bytes, Login] = field(default_factory=dict, repr=False)
    _logins: dict[str, Login] = field(default_factory=dict, repr=False)
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
        login, now = self._secret.get(credentials.digest_of(secret)), self.clock.now()
        if login is None or type(login.row) is not kind or login.expires_at <= now:
            return None
        return self._used(login, address, now)

    def holders(self, public_key: str) -> list[Caller]:
        """Who logs in by this key (`ALGORITHM BASE64`) and may: nobody keeps others from having it, too."""
        keys = [f"key:{row.key_id}" for row in self.keys.values() if row.public_key == public_key]
        return [self._logins[login].caller for login in keys if login in self._logins]

    def came(self, caller: Caller, address: str) -> Caller:
        """Note that somebody has logged in from an address; the caller with it."""
        login = self._logins.get(caller.login)
        return self._used(login, address, self.clock.now()).caller if login else replace(caller, address=address)

    def _used(self, login: Login, address: str, now: float) -> Login:
        login.used_at = now
        if login.caller.address != address:
            login.caller = replace(login.caller, address=address)
        return login

    def still(self, caller: Caller) -> bool:
        """Whether a caller who was identified before may do as much, and sees as much, as he did then."""
        if not caller.user_id:
            return True
        if caller.vps_key is not None:  # whether the VPS still has that key, `Uses` asks
            owner = self.users.get(caller.user_id)
            return owner is not None and not owner.disabled and owner.role >= caller.role
        login = self._logins.get(caller.login)
        if login is None or login.expires_at <= self.clock.now():
            return False
        return login.caller.role >= caller.role and login.caller.sees_all >= caller.sees_all

    def token_of(self, caller: Caller) -> TokenRow | None:
        """The API token by which a caller speaks, if it is one."""
        login = self._logins.get(caller.login)
        return login.row if login and isinstance(login.row, TokenRow) else None

    def session_of(self, caller: Caller) -> SessionRow | None:
        """The browser session by which a caller speaks, if it is one."""
        login = self._logins.get(caller.login)
        return login.row if login and isinstance(login.row, SessionRow) else None

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

        ends = [token.expires_at for token in self.tokens.values()]
        ends += [session.expires_at for session in self.sessions.values()]
        if used or any(end <= now for end in ends):
            await self.commit(sweep)

    def _take(self, known: Known) -> None:
        """Forget what was known of the account, and learn what is."""
        before = self._known.pop(known.user_id, None)
        if before is not None:
            for token in before.tokens:
                del self.tokens[token.token_id]
            for session in before.sessions:
                del self.sessions[session.session_id]
            for key in before.keys:
                del self.keys[key.key_id]
            for row in before.rows:
                self._forget(row)
            self.users.pop(known.user_id, None)
        if known.user is not None:
            self._known[known.user_id] = known
            self.users[known.user_id] = known.user
            self.tokens |= {row.token_id: row for row in known.tokens}
            self.sessions |= {row.session_id: row for row in known.sessions}
            self.keys |= {row.key_id: row for row in known.keys}
            for row in known.rows if not known.user.disabled else ():
                self._learn(_login(known.user, row))
        for caller, cut in list(self._watched.get(known.user_id, ())):
            if not self.still(caller):
                cut()

    def _learn(self, login: Login) -> None:
        self._logins[login.caller.login] = login
        if not isinstance(login.row, KeyRow):
            self._secret[login.row.digest] = login

    def _forget(self, row: TokenRow | SessionRow | KeyRow) -> None:
        self._logins.pop(_name_of(row), None)
        if not isinstance(row, KeyRow):
            self._secret.pop(row.digest, None)


def _known(tx: sqlite3.Connection, user_id: int) -> Known:
    user = users.find(tx, user_id)
    if user is None:
        return Known(user_id, None, (), ())
    return Known(
        user_id,
        user,
        tuple(tokens.of_user(tx, user_id)),
        tuple(sessions.of_user(tx, user_id)),
        tuple(ssh_keys.of_user(tx, user_id)),
    )


def _login(user: UserRow, row: TokenRow | SessionRow | KeyRow) -> Login:
    """What a token, a session or a key is good for, with what its owner is now."""
    role = user.role if isinstance(row, SessionRow) else min(user.role, row.role)
    caller = Caller(user.name, role, user.user_id, _name_of(row), "", user.role is Role.USER)
    return Login(row, caller, credentials.csrf_of(row.digest) if isinstance(row, SessionRow) else "")


def _name_of(row: TokenRow | SessionRow | KeyRow) -> str:
    """What a caller says of how he logged in."""
    if isinstance(row, KeyRow):
        return f"key:{row.key_id}"
    return f"token:{row.token_id}" if isinstance(row, TokenRow) else f"session:{row.session_id}"


def _write_down_use(tx: sqlite3.Connection, login: Login) -> None:
    at = login.used_at or 0.0
    if isinstance(login.row, KeyRow):
        ssh_keys.used(tx, login.row.key_id, at)
    elif isinstance(login.row, TokenRow):
        tokens.used(tx, login.row.token_id, at)
    else:
        sessions.used(tx, login.row.session_id, at)
