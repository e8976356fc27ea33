"""Sockets into workloads: the host only joins the caller with the runner that has the workload."""

from dataclasses import dataclass

from kohakuriver.host.state import Host
from kohakuriver.host.store import tasks
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NodeUnreachable
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.stream_api import OpenForward, OpenTerminal, RunnerForward, RunnerTerminal
from kohakuriver.wire.call import Peer
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.relay import relay
from kohakuriver.wire.sockets import Socket

ALIVE = (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a workload is: the runner that has it, and which attempt it is there."""

    runner: Peer
    task_id: Snowflake
    attempt: int


async def place_of(host: Host, task_id: Snowflake) -> Place:
    """Where it is now; raises NotFound, Conflict when it does not run, NodeUnreachable."""
    task = await host.db.read(lambda tx: tasks.get(tx, task_id))
    if task.status not in ALIVE or task.assigned_node is None:
        raise Conflict(f"task {task_id} is {task.status}: there is nothing to be in")
    node = host.registry.nodes.get(task.assigned_node)
    if node is None or not node.online:
        raise NodeUnreachable(f"task {task_id} is on node {task.assigned_node}, which is away")
    runner = host.scheduler.peers.at(task.assigned_node, node.row.url, node.row.tls_fingerprint)
    return Place(runner, task_id, task.attempt)


async def terminal(host: Host, caller: Caller, asked: OpenTerminal, socket: Socket) -> None:
    place = await place_of(host, asked.task_id)
    wanted = RunnerTerminal(
        task_id=place.task_id,
        attempt=place.attempt,
        user=caller.name,
        rows=asked.rows,
        columns=asked.columns,
        shell=asked.shell,
        session=asked.session,
        watch=asked.watch,
        may_watch=caller.role >= Role.OPERATOR,
    )
    far = await place.runner.open(stream_api.TERMINAL_AT_RUNNER, wanted, ", ".join(socket.offers))
    host.auth.notes.add(caller, Deed("terminal.open", f"task:{asked.task_id}", "looks on" if asked.watch else ""))
    await join(socket, far)


async def forward(host: Host, caller: Caller, asked: OpenForward, socket: Socket) -> None:
    place = await place_of(host, asked.task_id)
    wanted = RunnerForward(task_id=place.task_id, attempt=place.attempt, port=asked.port, proto=asked.proto)
    far = await place.runner.open(stream_api.FORWARD_AT_RUNNER, wanted, ", ".join(socket.offers))
    host.auth.notes.add_once(caller, Deed("forward.open", f"task:{asked.task_id}", f"{asked.proto} {asked.port}"))
    await join(socket, far)


async def join(caller: Socket, far: Socket) -> None:
    """Be the way between the two until either hangs up."""
    try:
        await caller.open(far.protocol)
        await relay(caller, far)
    finally:
        await far.hang_up()


CHANNELS = [on_channel(stream_api.TERMINAL, terminal), on_channel(stream_api.FORWARD, forward)]
