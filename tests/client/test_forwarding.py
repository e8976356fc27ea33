"""Local ports of `kohakuriver forward`: what is kept of a connection while it goes through."""

import asyncio
import gc
import socket
import weakref
from typing import ClassVar, cast

import pytest

from kohakuriver.client.session import Session
from kohakuriver.client.streams.forwarding import Address, Door, forward
from kohakuriver.client.streams.mapping import Mapping
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.stream_api import OpenForward
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import LOST, Message

LOOKS, LOOK_SECONDS = 5, 0.005


class HeldUp:
    """The inside of a workload that takes nothing; whoever sends to it is held up, and only he knows by what."""

    def __init__(self, met: list[weakref.ref["asyncio.Future[None]"]]) -> None:
        self.close_code, self.close_reason = LOST, ""
        self.carrier, self._met = self, met

    async def send(self, message: Message) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._met.append(weakref.ref(never))
        await never

    async def receive(self) -> Message | None:
        await asyncio.get_running_loop().create_future()
        return None

    async def close(self, code: int, reason: str = "") -> None:
        pass

    async def hang_up(self) -> None:
        pass


class DoorToNobody(Door):
    met: ClassVar[list[weakref.ref["asyncio.Future[None]"]]] = []

    async def open(self) -> RawSocket:
        return cast(RawSocket, HeldUp(self.met))


async def fill(connection: socket.socket) -> None:
    """Send until nobody has taken anything for several looks."""
    full = 0
    while full < LOOKS:
        try:
            connection.send(bytes(65536))
            full = 0
        except BlockingIOError:
            full += 1
            await asyncio.sleep(LOOK_SECONDS)


def test_a_connection_that_is_held_up_is_not_garbage() -> None:
    async def work() -> None:
        door = DoorToNobody(cast(Session, None), OpenForward(task_id=Snowflake(1), port=80), pytest.fail)
        listening: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        mapping = Mapping("127.0.0.1", 0, 80)
        forwarding = asyncio.create_task(forward([(mapping, door)], lambda _, address: listening.set_result(address)))
        with socket.create_connection(await listening) as connection:
            connection.setblocking(False)
            await fill(connection)
            gc.collect()
            assert door.met[0]() is not None
            forwarding.cancel()
            await asyncio.wait([forwarding])

    asyncio.run(work())
