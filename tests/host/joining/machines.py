"""Machines that join a real host over real HTTP, honestly or not."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from kohakuriver.host.app import running_host
from kohakuriver.host.state import Host
from kohakuriver.model import host_api, join_api
from kohakuriver.model.node import Machine
from kohakuriver.model.report import Changed, Heartbeat, Register, Registered, Report
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.wire import joining
from kohakuriver.wire.call import Peer
from kohakuriver.wire.joining import Agreed, Token
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.host.auth.house import House


@dataclass
class Lab:
    """A running host with accounts, its admin, and machines that come and go."""

    house: House
    admin: dict[str, str]

    @property
    def host(self) -> Host:
        return self.house.host

    def peer(self, name: str, key: bytes) -> Peer:
        """Somebody who signs with this name and key."""
        return Peer(self.house.http, self.host.url, Signer(name, key, SteadyTime()))

    async def token(self, **wanted: Any) -> Token:
        said = await self.house.ask("POST", "/api/join-tokens", self.admin, wanted)
        assert said.status == 200, said
        return joining.parse_token(said.body["token"])

    async def join(self, token: Token, hostname: str = "alpha", **asked: Any) -> bytes:
        """The key that a machine has after it joined."""
        nonce = asked.pop("nonce", secrets.token_hex(32))
        request = join_api.Join(hostname=hostname, nonce=nonce, **asked)
        joined = await self.peer(token.signs_as, token.secret).call(join_api.NODE_JOIN, request)
        assert joined.cluster_id == self.host.cluster_id
        return joining.runner_key(token.secret, Agreed(joined.cluster_id, hostname, nonce, joined.nonce))

    async def register(self, hostname: str, key: bytes, url: str = "http://127.0.0.1:1") -> Registered:
        return await self.peer(hostname, key).call(host_api.NODE_REGISTER, introduction(hostname, url))


def introduction(hostname: str, url: str = "http://127.0.0.1:1") -> Register:
    report = Report(instance=secrets.token_hex(8), sequence=1)
    machine = Machine(cores=4, memory_bytes=8 * 10**9)
    return Register(hostname=hostname, url=url, version="1", engine="fake", machine=machine, clock=0.0, report=report)


def node_calls(hostname: str) -> list[tuple[Any, Any]]:
    """Every route that is for a runner, with something to send to it."""
    report = Report(instance="x", sequence=2)
    return [
        (host_api.NODE_REGISTER, introduction(hostname)),
        (host_api.NODE_HEARTBEAT, Heartbeat(hostname=hostname, clock=0.0, report=report)),
        (host_api.NODE_REPORT, Changed(hostname=hostname, report=report)),
    ]


def settings_in(folder: Path, **changed: Any) -> HostSettings:
    plain: dict[str, Any] = {
        "host_port": 0,
        "host_ssh_proxy_port": 0,
        "state_dir": str(folder / "host"),
        "cluster_secret_file": str(folder / "cluster_secret"),
        "auth_enabled": True,
        "admin_secret": "a long admin secret",
    }
    return HostSettings(**plain | changed)


@asynccontextmanager
async def open_lab(settings: HostSettings, clock: Clock | None = None) -> AsyncIterator[Lab]:
    """A lab until the block ends."""
    async with running_host(settings, clock or SystemClock()) as host, aiohttp.ClientSession() as http:
        yield Lab(House(host, http), {"X-Admin-Token": settings.admin_secret})


def in_lab(folder: Path, work: Callable[[Lab], Awaitable[None]], **changed: Any) -> None:
    """Run a test in a lab of its own."""

    async def run() -> None:
        async with open_lab(settings_in(folder, **changed)) as lab:
            await work(lab)

    asyncio.run(run())
