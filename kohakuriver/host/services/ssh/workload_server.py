"""The SSH server that a workload has although nothing of it is inside: shells, commands, files, connections from within."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, cast

import asyncssh

from kohakuriver.host.services.ssh.carry import GONE, Process, Reader, Writer, carry_files, carry_process
from kohakuriver.host.services.ssh.channel import Channel, Connection
from kohakuriver.host.services.ssh.inside import Inside
from kohakuriver.host.services.ssh.people import Visit, Workload
from kohakuriver.model import codec
from kohakuriver.model.errors import Conflict, RiverError
from kohakuriver.model.ssh_api import StartProcess
from kohakuriver.wire.line import Line, connected
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.relay import relay
from kohakuriver.wire.sockets import Socket

PASSED_ON = ("LANG", "LC_", "COLORTERM")  # of what a client wants in the environment: how this begins
MOST_VARIABLES, MOST_CHARACTERS, MOST_ROWS = 32, 1000, 9999
REFUSED = 255  # the exit code by which ssh tells its own failures from those of commands
Spawn = Callable[[str, Coroutine[Any, Any, None]], object]
Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]  # calls back when one may no longer be inside
Place = Callable[[], AbstractContextManager[None]]  # one channel; raises TooMany


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody in a workload: who, in which, and how many channels he may still open; `spawn` starts background work."""

    inside: Inside
    spawn: Spawn
    visit: Visit
    place: Place
    watch: Watch

    @property
    def workload(self) -> Workload:
        assert self.visit.workload is not None
        return self.visit.workload

    async def session(self, process: Process) -> None:
        """A shell, a command, or the files."""
        try:
            with self.place(), self.watch(process.close):
                await self._session(process)
        except RiverError as refused:
            process.stderr.write(f"kohakuriver: {refused}\r\n".encode())
            process.exit(REFUSED)
        except GONE:
            process.close()

    async def _session(self, process: Process) -> None:
        if process.subsystem == "sftp":
            files = await self.inside.files(self.workload, self.visit.login)
            await carry_files(process, files)
        elif process.subsystem:
            process.stderr.write(b"kohakuriver: there is no such subsystem\r\n")
            process.exit(REFUSED)
        else:
            await carry_process(process, await self.inside.process(self.workload, _wanted(process, self.visit.login)))

    async def connection(self, host: str, port: int, asker: asyncssh.SSHServerConnection) -> Channel:
        """A connection from within, ready to be carried; raises ChannelOpenError when there is none."""

        async def reach() -> Reached:
            return Reached(await self.inside.port(self.workload, host, port), self.watch)

        return await opened(Way(self.place, reach), asker, self.spawn)


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection, and how to hear that it must be cut."""

    socket: Socket
    watch: Watch


@dataclass(frozen=True, slots=True)
class Way:
    """Where a channel is to lead, and the place that it takes."""

    place: Place
    reach: Callable[[], Awaitable[Reached]]


async def opened(way: Way, asker: asyncssh.SSHServerConnection, spawn: Spawn) -> Channel:
    """A channel that is carried there until either side is gone; raises ChannelOpenError when nothing is there."""
    channel, held = Channel(), ExitStack()
    try:
        with ExitStack() as unless_carried:
            unless_carried.enter_context(way.place())
            far = await way.reach()
            try:
                if asker.is_closed():  # then asyncssh wants no channel any more, and does not say so
                    raise Conflict("whoever asked is gone")
                spawn("ssh connection", _carry(channel.line, far, held))
            except RiverError:
                await far.socket.hang_up()
                raise
            held.enter_context(unless_carried.pop_all())  # it begins later
    except RiverError as refused:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(refused)) from None
    return channel


async def _carry(line: Line, far: Reached, held: ExitStack) -> None:
    ours = asyncio.current_task()

    def cut() -> None:
        assert ours is not None
        ours.cancel()

    with held, far.watch(cut):
        await line.flushed()  # now it is open
        await relay(PlainSocket(line), far.socket)


def _wanted(process: Process, user: str) -> StartProcess:
    """What the client asks for; raises BadRequest for what is out of bounds."""
    columns, rows = process.term_size[:2]
    plain = {
        "command": process.command or "",
        "user": user,
        "term": process.term_type or "",
        "rows": min(rows, MOST_ROWS),
        "columns": min(columns, MOST_ROWS),
        "env": _passed_on(process.env),
    }
    return codec.decode(StartProcess, plain)


def _passed_on(env: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in env.items() if name.startswith(PASSED_ON) and len(value) <= MOST_CHARACTERS}
    return dict(list(kept.items())[:MOST_VARIABLES])


class Session(asyncssh.SSHServerProcess[bytes]):
    """A session channel whatever is asked for on it, files included."""

    def __init__(self, serve: Callable[[Process], Coroutine[Any, Any, None]], spawn: Spawn) -> None:
        super().__init__(serve, None, 3, False)
        self._spawn = spawn

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    def session_started(self) -> None:
        channel = self._chan
        stdin, stdout = Reader(self, channel), Writer(self, channel)
        work = self._start_process(stdin, stdout, Writer(self, channel, asyncssh.EXTENDED_DATA_STDERR))
        try:
            self._spawn("ssh session", cast(Coroutine[Any, Any, None], work))
        except RiverError:  # too many, or we stop
            channel.close()


def session_of(connection: asyncssh.SSHServerConnection, session: Session) -> Any:
    """What asyncssh wants for a session that speaks bytes."""
    return connection.create_server_channel(encoding=None), session


class WorkloadServer(asyncssh.SSHServer):
    """Serves one guest who has been let in already; the login name is whom he wants to be."""

    def __init__(self, guest: Callable[[str], Guest], spawn: Spawn) -> None:
        self._guest_named, self._spawn = guest, spawn
        self._guest: Guest | None = None
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        self._guest = self._guest_named(username)
        return False  # nobody comes here but through a door that has asked him

    def session_requested(self) -> Any:
        assert self._guest is not None and self._connection is not None
        return session_of(self._connection, Session(self._guest.session, self._spawn))

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        assert self._guest is not None and self._connection is not None
        return self._guest.connection(dest_host, dest_port, self._connection)


async def built_in(options: asyncssh.SSHServerConnectionOptions, server: WorkloadServer) -> Socket:
    """A connection to a server for one guest, as if it were one to a port of the workload."""
    ours, theirs = socket.socketpair()
    with ExitStack() as undo:  # whoever asked may go away while he waits
        undo.callback(theirs.close)
        line = await connected(ours)
        undo.callback(line.transport.close)
        loop = asyncio.get_running_loop()
        connection = Connection(loop, options)
        await loop.create_connection(lambda: connection, sock=theirs)
        undo.pop_all()
    return PlainSocket(line)
