"""Connections to a port of a workload: one for each socket, or many in frames."""

from collections.abc import Sequence

from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.stream_api import RunnerForward
from kohakuriver.model.tunnel import FLOW, STREAM
from kohakuriver.runner.state import Runner
from kohakuriver.runner.tunnel import Tunnel
from kohakuriver.runner.ways import Way, join
from kohakuriver.system import conduit
from kohakuriver.system.conduit import Conduit
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.line import connected
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.relay import relay
from kohakuriver.wire.sockets import LOST, NORMAL, Message, Socket


async def forward(runner: Runner, caller: Caller, asked: RunnerForward, socket: Socket) -> None:
    key = WorkloadKey(asked.task_id, asked.attempt)

    async def reach(proto: str, port: int) -> Conduit:
        pid = (await runner.bench.engine.inside(key)).pid
        try:
            return await conduit.connect(pid, port, proto)
        except EngineFailed as closed:  # its network cannot be entered
            return await _way_into(runner, key, closed).connect(proto, port)

    if STREAM in socket.offers:
        pid = (await runner.bench.engine.inside(key)).pid
        try:
            inside = await _straight(pid, asked)
        except EngineFailed as closed:
            lane = await _way_into(runner, key, closed).connect(asked.proto, asked.port)
            return await join(socket, lane)
        return await _one(socket, inside)
    await runner.bench.engine.inside(key)  # so that an opening fails which can lead nowhere
    has_flow = FLOW in socket.offers
    await socket.open(FLOW if has_flow else "")
    await Tunnel(socket, reach, runner.loops, asked.port, has_flow).serve()


def _way_into(runner: Runner, key: WorkloadKey, closed: EngineFailed) -> Way:
    """The way by which its container has dialled us; raises what kept us out when it has not."""
    way = runner.ways.find(key)
    if way is None:
        raise closed
    return way


async def _straight(pid: int, asked: RunnerForward) -> Socket:
    """One connection, or one sender of datagrams; raises EngineFailed where the network cannot be entered."""
    if asked.proto == "udp":
        return Datagrams(await conduit.connect(pid, asked.port, asked.proto))
    return PlainSocket(await connected(await conduit.stream(pid, asked.port)))


async def _one(socket: Socket, inside: Socket) -> None:
    """The socket is that connection."""
    try:
        await socket.open(STREAM)
        await relay(socket, inside)
    finally:
        await inside.hang_up()


class Datagrams(Socket):
    """UDP into a workload as a socket; there is no end of it."""

    def __init__(self, inside: Conduit) -> None:
        self.offers: Sequence[str] = ()
        self.protocol = ""
        self.close_code, self.close_reason = LOST, ""
        self._inside = inside

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        return await self._inside.read() or None

    async def send(self, message: Message) -> None:
        if message:
            await self._inside.write(message.encode() if isinstance(message, str) else message)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        await self._inside.close()

    async def hang_up(self) -> None:
        await self._inside.close()


CHANNELS = [on_channel(stream_api.FORWARD_AT_RUNNER, forward)]
