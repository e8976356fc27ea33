"""A real host with accounts on a loopback port, people with tokens for it, and a client that speaks HTTP."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from kohakuriver.host.app import running_host
from kohakuriver.host.auth import credentials, logins
from kohakuriver.host.auth.accounts import Changed
from kohakuriver.host.auth.logins import Span
from kohakuriver.host.state import Host
from kohakuriver.host.store import groups, ssh_keys, users
from kohakuriver.host.store.ssh_keys import KeyRow
from kohakuriver.host.store.users import UserRow
from kohakuriver.model.access import Role
from kohakuriver.model.auth_api import Quota
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.wire.browser import COOKIE, CSRF_HEADER

YEAR_SECONDS = 365 * 86400.0
PASSWORD = "correct horse battery"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@laptop"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """What was refused, in one word."""
        code: str = self.body["error"]["code"]
        return code

    @property
    def message(self) -> str:
        message: str = self.body["error"]["message"]
        return message


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account and the headers that prove it."""

    name: str
    user_id: Snowflake
    headers: dict[str, str] = field(default_factory=dict)
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class House:
    """A running host and a way to speak with it."""

    host: Host
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, who: Person | Mapping[str, str] | None = None, body: object = None
    ) -> Said:
        """One request; `who` is a person or the headers that stand for one."""
        headers = dict(who.headers if isinstance(who, Person) else who or {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body)
        async with self.http.request(method, self.host.url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return Said(answer.status, json.loads(text) if is_json else text, answer.headers)

    async def get(self, path: str, who: Person | Mapping[str, str] | None = None) -> Any:
        """What a GET gives when it goes well."""
        said = await self.ask("GET", path, who)
        assert said.status == 200, said
        return said.body

    async def person(self, name: str, role: Role, *groups: str, token_role: Role | None = None) -> Person:
        """A new account with an API token; its password can only be set."""
        now = self.host.clock.now()
        user = UserRow(
            user_id=self.host.ids.next(), name=name, role=role, disabled=False, created_at=now, groups=groups
        )
        span = Span(now, now + YEAR_SECONDS)
        new = logins.new_token(self.host.ids.next(), user.user_id, "test", token_role or role, span)

        def enrol(tx: sqlite3.Connection) -> Changed[None]:
            users.insert(tx, user, "")
            logins.store_token(tx, new.row)
            return Changed(None, frozenset({user.user_id}))

        await self.host.auth.accounts.commit(enrol)
        return Person(name, user.user_id, {"Authorization": f"Bearer {new.secret}"}, new.row.token_id)

    async def key(self, person: Person, public_key: str = "") -> int:
        """The id of an SSH key of his, added behind the host's back; without one any."""
        key_id = self.host.ids.next()
        row = KeyRow(key_id, person.user_id, "k", Role.ADMIN, public_key or PUBLIC_KEY.rpartition(" ")[0], 0.0)

        def add(tx: sqlite3.Connection) -> Changed[None]:
            ssh_keys.insert(tx, row)
            return Changed(None, frozenset({person.user_id}))

        await self.host.auth.accounts.commit(add)
        return key_id

    async def in_browser(self, person: Person, seconds: float = YEAR_SECONDS) -> Person:
        """The same person with a browser session instead of the token."""
        now = self.host.clock.now()
        new = logins.new_session(self.host.ids.next(), person.user_id, "127.0.0.1", Span(now, now + seconds))

        def begin(tx: sqlite3.Connection) -> Changed[None]:
            logins.store_session(tx, new.row)
            return Changed(None, frozenset({person.user_id}))

        await self.host.auth.accounts.commit(begin)
        headers = {"Cookie": f"{COOKIE}={new.secret}", CSRF_HEADER: credentials.csrf_of(new.row.digest)}
        return replace(person, headers=headers)

    async def with_password(self, person: Person, password: str = PASSWORD) -> None:
        """Let him log in."""
        hashed = await self.host.auth.passwords.hash(password)
        await self.host.db.write(lambda tx: users.set_password(tx, person.user_id, hashed))

    async def log_in(self, name: str, password: str = PASSWORD, **more: object) -> Said:
        """A login, in a browser if no `token_name` is given."""
        return await self.ask("POST", "/api/auth/login", None, {"username": name, "password": password, **more})

    async def invitation(self, who: Person, **fields: object) -> str:
        """The code of a new invitation."""
        said = await self.ask("POST", "/api/auth/invitations", who, fields)
        assert said.status == 200, said
        code: str = said.body["code"]
        return code

    async def register(self, name: str, code: str, **more: object) -> Said:
        """Somebody uses a code."""
        body = {"username": name, "password": PASSWORD, "invitation": code, "token_name": "t", **more}
        return await self.ask("POST", "/api/auth/register", None, body)

    async def group(self, name: str, **limits: int) -> None:
        """A group with limits."""
        quota = Quota(**limits)
        await self.host.db.write(lambda tx: groups.save(tx, name, quota))

    async def submit(self, who: Person, **fields: object) -> Said:
        """A new task."""
        return await self.ask("POST", "/api/tasks", who, {"command": "true", **fields})

    async def task(self, who: Person, **fields: object) -> str:
        """The id of a new task."""
        said = await self.submit(who, **fields)
        assert said.status == 202, said
        task_id: str = said.body["task_ids"][0]
        return task_id

    async def vps(self, who: Person, **fields: object) -> str:
        """The id of a new VPS."""
        said = await self.ask("POST", "/api/vps", who, fields)
        assert said.status == 202, said
        vps_id: str = said.body["vps"]["task_id"]
        return vps_id

    async def trail(self, **wanted: str) -> list[dict[str, str]]:
        """Entries of the trail whose members are as wanted, oldest first."""
        await self.host.auth.notes.write()
        rows = await self.host.db.read(lambda tx: tx.execute("SELECT * FROM audit ORDER BY entry_id").fetchall())
        entries = [dict(row) for row in rows]
        return [entry for entry in entries if wanted.items() <= entry.items()]


def settings_in(folder: Path, **changed: Any) -> HostSettings:
    """Settings of a host with accounts that lives in a folder."""
    plain: dict[str, Any] = {
        "host_port": 0,
        "host_ssh_proxy_port": 0,
        "state_dir": str(folder / "host"),
        "cluster_secret_file": str(folder / "cluster_secret"),
        "auth_enabled": True,
    }
    return HostSettings(**plain | changed)


@asynccontextmanager
async def open_house(settings: HostSettings, clock: Clock | None = None) -> AsyncIterator[House]:
    """A host until the block ends; its client keeps no cookies of its own."""
    async with (
        running_host(settings, clock or SystemClock()) as host,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=60)) as http,
    ):
        yield House(host, http)


def in_house(folder: Path, work: Callable[[House], Awaitable[None]], **changed: Any) -> None:
    """Run a test in a house of its own."""

    async def run() -> None:
        async with open_house(settings_in(folder, **changed)) as house:
            await work(house)

    asyncio.run(run())
