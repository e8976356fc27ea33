"""What SSH reaches in an attempt: connections from within, processes, files."""

import asyncio
import ipaddress
import os
import socket as sockets
from collections.abc import Sequence
from contextlib import suppress

from kohakuriver.model import codec, terminal
from kohakuriver.model import ssh_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import BadRequest, NotFound, RiverError
from kohakuriver.model.execution import OUT, ExecSession, ExecSpec
from kohakuriver.model.ssh_api import StartProcess
from kohakuriver.model.terminal import EndInput, Input, Kind, Resize, Signal
from kohakuriver.runner import scp
from kohakuriver.runner.disk import Disk
from kohakuriver.runner.sftp import Sftp, find_owner, find_user, home_of
from kohakuriver.runner.state import Runner
from kohakuriver.system import netns
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.system.listeners import LOOPBACK, Place
from kohakuriver.system.rooted import Root
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.line import connected
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.relay import relay
from kohakuriver.wire.sockets import Socket

CONNECT_SECONDS = 10.0
SHELL = "/bin/sh"
AT_HOME = "cd 2>/dev/null; "
LOGIN_SHELL = AT_HOME + 'for s in "$SHELL" bash ash sh; do command -v "$s" >/dev/null 2>&1 && exec "$s" -l; done'
COMMAND = AT_HOME + f'exec {SHELL} -c "$0"'


async def port(runner: Runner, caller: Caller, asked: api.PortInside, socket: Socket) -> None:
    inside = await runner.bench.engine.inside(WorkloadKey(asked.task_id, asked.attempt))
    places = await _places(asked.host, asked.port)
    made = await netns.connect(inside.pid, asked.port, sockets.SOCK_STREAM, CONNECT_SECONDS, places)
    far = PlainSocket(await connected(made))
    try:
        await socket.open()
        await relay(socket, far)
    finally:
        await far.hang_up()


async def _places(host: str, number: int) -> Sequence[Place]:
    """Where a host is; names are looked up on the node, for there may be nobody inside who could. Raises NotFound."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        family = sockets.AF_INET if address.version == 4 else sockets.AF_INET6
        return LOOPBACK if address.is_loopback else ((family, host),)
    if host == "localhost":
        return LOOPBACK
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, number, type=sockets.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotFound(f"there is no host {host[:70]}") from None
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _bytes(message: bytes | str) -> bytes:
    if isinstance(message, str):
        raise BadRequest("only bytes go here")
    return message


async def process(runner: Runner, caller: Caller, asked: api.ProcessInside, socket: Socket) -> None:
    await socket.open()
    first = await socket.receive()
    if first is None:
        return
    wanted = codec.decode(StartProcess, codec.loads(first.encode() if isinstance(first, str) else first))
    if not wanted.term and (copied := scp.parse(wanted.command)) is not None:
        inside, disk = await runner.bench.engine.inside(WorkloadKey(asked.task_id, asked.attempt)), runner.bench.sftp
        if (copying := await disk.do(lambda: _scp(inside.pid, wanted.user, copied))) is not None:
            return await _copy(socket, copying, disk)
    spec = spec_of(wanted, _root(runner))
    session = await runner.bench.engine.exec(WorkloadKey(asked.task_id, asked.attempt), spec)
    try:
        async with asyncio.timeout(None) as both:
            await asyncio.gather(_give(socket, session, spec.tty, both), _tell(session, socket))
    except TimeoutError:
        if not both.expired():
            raise
    finally:
        await session.close()


def _root(runner: Runner) -> str:
    """What root is called: 0, whatever the image knows of users; nobody where all runs as the user of this runner."""
    return "" if runner.settings.engine == "process" and os.geteuid() != 0 else "0"


def spec_of(wanted: StartProcess, root: str) -> ExecSpec:
    """The process as the engine takes it: a shell that begins at home, and becomes the command."""
    return ExecSpec(
        argv=(SHELL, "-c", COMMAND, wanted.command) if wanted.command else (SHELL, "-c", LOGIN_SHELL),
        tty=bool(wanted.term),
        env=wanted.env | ({"TERM": wanted.term} if wanted.term else {}),
        user=wanted.user if wanted.user != "root" else root,
        rows=wanted.rows or 24,
        columns=wanted.columns or 80,
    )


async def _give(socket: Socket, session: ExecSession, tty: bool, both: asyncio.Timeout) -> None:
    """Hand on what is said to the process; when nobody speaks any more, nobody listens either, and `both` ways end."""
    while (message := await socket.receive()) is not None:
        said = terminal.read_bytes(message)
        if isinstance(said, Input):
            await session.write(said.data)
        elif isinstance(said, Resize):
            await session.resize(said.rows, said.columns)
        elif isinstance(said, Signal):
            await session.signal(said.number)
        elif isinstance(said, EndInput) and not tty:  # a terminal has no end
            await session.write_eof()
    both.reschedule(0.0)


async def _tell(session: ExecSession, socket: Socket) -> None:
    """Tell what it writes, and how it ended."""
    while (piece := await session.read()) is not None:
        stream, data = piece
        await socket.send(terminal.frame(Kind.OUTPUT if stream == OUT else Kind.ERRORS, data))
    await socket.send(terminal.exit_frame(await session.wait() & 0xFF))
    await socket.close()


async def files(runner: Runner, caller: Caller, asked: api.FilesInside, socket: Socket) -> None:
    inside = await runner.bench.engine.inside(WorkloadKey(asked.task_id, asked.attempt))
    disk = runner.bench.sftp
    session = await disk.do(lambda: _sftp(inside.pid, asked.user))
    try:
        await socket.open()
        while data := await socket.receive():
            session.take(_bytes(data))
            while answers := await disk.do(session.answer_some):
                await socket.send(answers)
    finally:
        await disk.do(session.close)


def _sftp(pid: int, user: str) -> Sftp:
    """A session of somebody; raises NotFound for whom the workload does not know."""
    return Sftp(*_at_home(pid, user))


def _scp(pid: int, user: str, asked: scp.Asked) -> scp.Scp | None:
    """A copy in the name of somebody; None when the workload has an scp of its own. Raises NotFound."""
    root, home = _at_home(pid, user)
    if not scp.is_there(root):
        return scp.Scp(root, home, asked)
    root.close()
    return None


def _at_home(pid: int, user: str) -> tuple[Root, str]:
    """The root for somebody, and his home; raises NotFound for whom the workload does not know."""
    root = Root.of_process(pid)
    try:
        who = find_user(root, user) if user else find_owner(root)
        root.owner = who.owner
        return root, home_of(root, who)
    except RiverError:
        root.close()
        raise


async def _copy(socket: Socket, copying: scp.Scp, disk: Disk) -> None:
    """Speak with the client's scp as a process would."""
    try:
        while True:
            while said := await disk.do(copying.answer_some):
                await socket.send(terminal.frame(Kind.OUTPUT, said))
            if copying.code is not None or (message := await socket.receive()) is None:
                break
            heard = terminal.read_bytes(message)
            if isinstance(heard, Input | EndInput):
                copying.take(heard.data if isinstance(heard, Input) else b"")
        if copying.code is not None:
            await socket.send(terminal.exit_frame(copying.code))
            await socket.close()
    finally:
        await disk.do(copying.close)


ANSWERS = [
    on_channel(api.PORT_AT_RUNNER, port),
    on_channel(api.PROCESS_AT_RUNNER, process),
    on_channel(api.FILES_AT_RUNNER, files),
]
