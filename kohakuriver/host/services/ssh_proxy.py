"""The SSH port: it knows people by their keys, and lets each through to what is his.

Two ways lead on. `ssh -J NAME@host:8002 LOGIN@WORKLOAD` asks for a connection to `WORKLOAD`: it goes to the SSH server
in there if one listens, else to ours, which stands for it. `ssh -p 8002 WORKLOAD+LOGIN@host` is in the workload at once.
"""

import asyncio
import logging
import socket
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import asyncssh

from kohakuriver.host.services.ssh import algorithms
from kohakuriver.host.services.ssh.carry import Process
from kohakuriver.host.services.ssh.channel import Connection
from kohakuriver.host.services.ssh.host_keys import HostKeys
from kohakuriver.host.services.ssh.inside import SSH_PORT, Inside
from kohakuriver.host.services.ssh.limits import Gate
from kohakuriver.host.services.ssh.people import People, Visit, Workload
from kohakuriver.host.services.ssh.workload_server import (
    REFUSED,
    Guest,
    Reached,
    Session,
    Spawn,
    Way,
    WorkloadServer,
    built_in,
    opened,
    session_of,
)
from kohakuriver.host.store.audit import REFUSED as TURNED_AWAY
from kohakuriver.host.store.audit import Deed
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.public_key import read_public_key
from kohakuriver.model.settings import HostSettings
from kohakuriver.wire.sockets import Socket

log = logging.getLogger(__name__)
MOST_TRIES = 20  # keys that one connection may offer
HELP = (
    "kohakuriver: you are {name}, and this is the way on to your workloads:\r\n"
    "  ssh -J {name}@HOST:PORT root@WORKLOAD    or    ssh -p PORT WORKLOAD@HOST\r\n"
)


@dataclass(frozen=True, slots=True)
class SshProxy:
    """All that the port needs to know; `spawn` starts background work."""

    settings: HostSettings
    people: People
    keys: HostKeys
    inside: Inside
    spawn: Spawn
    gate: Gate
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)

    def hang_up(self) -> None:
        """End all that is connected."""
        for connection in list(self.connections):
            connection.abort()

    async def listen(self, door: socket.socket) -> asyncio.Server:
        """Serve whoever comes to a socket that listens."""
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: Visitor(self), server_host_keys=self.keys.of_port, **self._options()
        )
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(loop, options), sock=door, backlog=256)

    async def standing_for(self, visit: Visit, workload: Workload) -> Socket:
        """A connection to an SSH server that stands for a workload; whoever is given it is let in as this visitor."""

        def guest(login: str) -> Guest:
            return self.guest(replace(visit, workload=workload, login=login))

        server = WorkloadServer(guest, self.spawn)
        names = (*workload.names, *filter(None, [visit.shown_as]))  # all speak of the one key: no name is another's
        shown = [(self.keys.ed25519, self.keys.certificate(names))]
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: server, server_host_keys=shown, **self._options()
        )
        return await built_in(options, server)

    async def reach(self, visit: Visit, word: str) -> Reached:
        """The SSH server of a workload, its own or ours; raises RiverError."""
        if visit.workload is not None and word in visit.workload.names:
            return await self._reach(visit, visit.workload)
        return await self._reach(visit, await self.people.find(visit.caller, word))

    async def _reach(self, visit: Visit, workload: Workload) -> Reached:
        try:
            far = await self.inside.port(workload, "127.0.0.1", SSH_PORT)
        except NotFound:  # nobody listens there
            far = await self.standing_for(visit, workload)
        return Reached(far, partial(self.people.inside, visit.caller, workload))

    def guest(self, visit: Visit) -> Guest:
        """Somebody who is in a workload."""
        assert visit.workload is not None
        watch = partial(self.people.inside, visit.caller, visit.workload)
        return Guest(self.inside, self.spawn, visit, lambda: self.place_of(visit.caller), watch)

    def place_of(self, caller: Caller) -> AbstractContextManager[None]:
        """A channel of this person; raises TooMany."""
        return self.gate.channels.place(caller.name)

    def _options(self) -> dict[str, Any]:
        return algorithms.options(self.settings.ssh_older_clients_allowed)


class Visitor(asyncssh.SSHServer):
    """One connection to the port: who comes, and where he goes on to."""

    def __init__(self, proxy: SshProxy) -> None:
        self._proxy = proxy
        self._connection: asyncssh.SSHServerConnection | None = None
        self._address, self._tries = "", 0
        self._visit: Visit | None = None
        self._is_in = False
        self._held, self._as_stranger = ExitStack(), ExitStack()

    # ---- coming and going

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection, self._address = conn, conn.get_extra_info("peername")[0]
        self._proxy.connections.add(conn)
        try:
            self._held, self._as_stranger = self._proxy.gate.arrive(self._address)
        except RiverError as refused:
            log.info("ssh: turned away address=%s reason=%s", self._address, refused)
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._connection is not None
        self._proxy.connections.discard(self._connection)
        self._as_stranger.close()
        self._held.close()
        if not self._is_in and self._tries and self._proxy.gate.failed(self._address):
            stranger = Caller("", Role.ANONY, address=self._address)
            self._note(stranger, Deed("ssh.login", "", "no key that is known here", TURNED_AWAY))

    def _note(self, caller: Caller, deed: Deed) -> None:
        self._proxy.people.auth.notes.add(caller, deed)

    # ---- who comes

    async def begin_auth(self, username: str) -> bool:
        people = self._proxy.people
        if people.auth.enabled:
            return True
        self._visit = await people.anybody(username, self._address)
        return False

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._count_try()
        try:
            text = read_public_key(key.export_public_key().decode("ascii", "replace")).text
        except ValueError:
            text = ""  # of a kind that nobody can have added
        self._visit = await self._proxy.people.by_key(username, text)
        return self._visit is not None

    def kbdint_auth_supported(self) -> bool:
        return self._proxy.settings.ssh_token_login_allowed

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", lang, [("API token: ", False)]

    async def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        self._count_try()
        try:
            token = responses[0].strip() if len(responses) == 1 else ""
            self._visit = await self._proxy.people.by_token(username, token, self._address)
        except RiverError:  # too many wrong ones
            self._visit = None
        return self._visit is not None

    def auth_completed(self) -> None:
        assert self._visit is not None and self._connection is not None
        people = self._proxy.people
        caller = people.auth.accounts.came(self._visit.caller, self._address)
        self._visit = replace(self._visit, caller=caller)
        self._is_in = True
        self._as_stranger.close()
        self._proxy.gate.went_well(self._address)
        try:
            self._held.enter_context(self._proxy.gate.people.place(caller.name))
        except RiverError as refused:
            log.info("ssh: turned away user=%s reason=%s", caller.name, refused)
            return self._connection.abort()
        self._held.enter_context(people.auth.accounts.watch(caller, self._connection.abort))
        workload = self._visit.workload
        if workload:  # else each way on from here asks whether it is his
            self._held.enter_context(people.inside(caller, workload, self._connection.abort))
        self._note(caller, Deed("ssh.login", f"task:{workload.task_id}" if workload else "", caller.login))

    def _count_try(self) -> None:
        assert self._connection is not None
        self._tries += 1
        if self._tries > 2 * MOST_TRIES:  # each key is asked about, then shown
            self._connection.abort()

    # ---- where he goes

    def session_requested(self) -> Any:
        assert self._visit is not None and self._connection is not None
        serve = self._proxy.guest(self._visit).session if self._visit.workload else self._help
        return session_of(self._connection, Session(serve, self._proxy.spawn))

    async def _help(self, process: Process) -> None:
        assert self._visit is not None
        process.stderr.write(HELP.format(name=self._visit.caller.name).encode())
        process.exit(REFUSED)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        visit, proxy = self._visit, self._proxy
        assert visit is not None and self._connection is not None
        if visit.workload and (dest_port != SSH_PORT or dest_host not in visit.workload.names):
            return proxy.guest(visit).connection(dest_host, dest_port, self._connection)
        if dest_port != SSH_PORT:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "only SSH goes on from here")
        way = Way(lambda: proxy.place_of(visit.caller), lambda: proxy.reach(visit, dest_host))
        return opened(way, self._connection, proxy.spawn)
