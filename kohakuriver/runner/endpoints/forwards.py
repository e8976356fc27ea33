"""Connections to a port of a workload: one for each socket, or many in frames."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.stream_api import RunnerForward
from kohakuriver.model.tunnel import FLOW, STREAM
from kohakuriver.runner.state import Runner
from kohakuriver.runner.tunnel import Tunnel
from kohakuriver.system import conduit
from kohakuriver.system.conduit import Conduit
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket


async def forward(runner: Runner, caller: Caller, asked: RunnerForward, socket: Socket) -> None:
    key = WorkloadKey(asked.task_id, asked.attempt)

    async def reach(proto: str, port: int) -> Conduit:
        pid = (await runner.bench.engine.inside(key)).pid
        try:
            return await conduit.connect(pid, port, proto)
        except EngineFailed:  # its network cannot be entered; perhaps it has dialled us
            way = runner.ways.find(key)
            if way is None:
                raise
        return await way.connect(proto, port)

    if STREAM in socket.offers:
        await _one(socket, await reach(asked.proto, asked.port))
        return
    await runner.bench.engine.inside(key)  # so that an opening fails which can lead nowhere
    has_flow = FLOW in socket.offers
    await socket.open(FLOW if has_flow else "")
    await Tunnel(socket, reach, runner.loops, asked.port, has_flow).serve()


async def _one(socket: Socket, inside: Conduit) -> None:
    """Join the socket and one connection until both directions have ended, or the socket is gone."""
    try:
        await socket.open(STREAM)
        await Joint(socket, inside).serve()
    finally:
        await inside.close()


@dataclass(slots=True)
class Joint:
    """A socket and the one connection that it is."""

    socket: Socket
    inside: Conduit
    ended: int = 0

    async def serve(self) -> None:
        """Until both directions have ended; raises ConnectionResetError when the socket is gone."""
        await asyncio.gather(self._inwards(), self._outwards())

    async def _inwards(self) -> None:
        while (message := await self.socket.receive()) is not None:
            data = message.encode() if isinstance(message, str) else message
            with suppress(OSError):  # it listens no more; what it says may still be wanted
                await (self.inside.write(data) if data else self.inside.write_eof())
            if not data:
                await self._one_end()
        await self.inside.close()

    async def _outwards(self) -> None:
        while data := await self.inside.read():
            await self.socket.send(data)
        await self.socket.send(b"")
        await self._one_end()

    async def _one_end(self) -> None:
        self.ended += 1
        if self.ended == 2:
            await self.socket.close()


CHANNELS = [on_channel(stream_api.FORWARD_AT_RUNNER, forward)]
