"""Shells in the containers of environments, which are on the host itself: sessions as in workloads."""

from kohakuriver.host.state import Host
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import docker_api
from kohakuriver.model.access import Caller
from kohakuriver.model.docker_api import OpenShell
from kohakuriver.model.execution import ExecSpec
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.terminal_seat import take_seat
from kohakuriver.wire.terminal_session import Session
from kohakuriver.wire.terminal_sessions import DEFAULT_TERM

# The container of an environment has a shell, or it would not run.
BEST_SHELL = ("/bin/sh", "-c", "exec $(command -v bash || command -v ash || echo /bin/sh)")


async def terminal(host: Host, caller: Caller, asked: OpenShell, socket: Socket) -> None:
    start = StartTerminal(rows=asked.rows, columns=asked.columns, shell=asked.shell, session=asked.session)
    seat = await take_seat(socket, start)
    await host.shells.attend(await _session(host, caller, asked.name, seat.start), seat)


async def _session(host: Host, caller: Caller, name: str, start: StartTerminal) -> Session[str]:
    if start.watch:
        return host.shells.latest(name, start.session)
    if start.session:
        return host.shells.find(name, start.session, caller.name)
    host.shells.refuse_too_many(name)
    process = await host.environments.run(name, _spec(start))
    host.auth.notes.add(caller, Deed("terminal.open", f"environment:{name}"))
    return host.shells.add(name, caller.name, process, start)


def _spec(start: StartTerminal) -> ExecSpec:
    return ExecSpec(
        argv=tuple(start.argv) or ((start.shell,) if start.shell else BEST_SHELL),
        tty=start.tty,
        env={"TERM": start.term or DEFAULT_TERM} if start.tty else {},
        rows=start.rows,
        columns=start.columns,
    )


CHANNELS = [on_channel(docker_api.ENV_TERMINAL, terminal)]
