"""Terminals in attempts: a socket to a session, for a program or a browser."""

from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotAllowed, NotFound
from kohakuriver.model.stream_api import RunnerTerminal, StartTerminal
from kohakuriver.runner.attempt import Held
from kohakuriver.runner.state import Runner
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket
from kohakuriver.wire.terminal_seat import take_seat
from kohakuriver.wire.terminal_session import Session


async def terminal(runner: Runner, caller: Caller, asked: RunnerTerminal, socket: Socket) -> None:
    held = runner.workloads.find(asked.task_id, asked.attempt)
    if held is None:
        raise NotFound(f"there is no task {asked.task_id} on {runner.hostname}")
    start = StartTerminal(
        rows=asked.rows, columns=asked.columns, shell=asked.shell, session=asked.session, watch=asked.watch
    )
    seat = await take_seat(socket, start)
    await runner.terminals.sessions.attend(await _session(runner, held, asked, seat.start), seat)


async def _session(runner: Runner, held: Held, asked: RunnerTerminal, start: StartTerminal) -> Session[WorkloadKey]:
    if start.watch and not asked.may_watch:
        raise NotAllowed("only operators look on")
    if start.watch:
        return runner.terminals.sessions.latest(held.key, start.session)
    if start.session:
        return runner.terminals.sessions.find(held.key, start.session, asked.user)
    return await runner.terminals.begin(held, asked.user, start)


CHANNELS = [on_channel(stream_api.TERMINAL_AT_RUNNER, terminal)]
