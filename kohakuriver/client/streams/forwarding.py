"""Local ports that lead into a workload: each connection, and each sender of datagrams, has a socket of its own."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from kohakuriver.client.channel import open_channel
from kohakuriver.client.session import Session
from kohakuriver.client.streams.mapping import Mapping
from kohakuriver.model import stream_api
from kohakuriver.model.errors import BadRequest, RiverError, Unavailable
from kohakuriver.model.stream_api import OpenForward
from kohakuriver.model.tunnel import STREAM
from kohakuriver.system.clock import SystemClock
from kohakuriver.system.loops import Loops
from kohakuriver.wire.line import Line
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.relay import relay

PATIENCE_SECONDS, FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 30.0, 0.1, 3.0
IDLE_SECONDS = 120.0
MOST_DATAGRAMS = 256
Address = tuple[str, int]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Door:
    """One port of a workload, and how it is reached; `tell` gets a line about each connection that could not be made."""

    session: Session
    opening: OpenForward
    tell: Tell

    async def open(self) -> RawSocket:
        """A connection; a host or a node that is away for a moment is waited for. Raises RiverError."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        began = loop.time()
        while True:
            try:
                return await open_channel(self.session, stream_api.FORWARD, self.opening, STREAM)
            except Unavailable:
                if loop.time() - began > PATIENCE_SECONDS:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    def let_in(self, loops: Loops, line: Line) -> None:
        """Serve a local connection in a task that we keep.

        One that only its connection knows would be collected as garbage while the other side holds it up.
        """
        try:
            loops.spawn("connection", self.serve(line))
        except RiverError as refused:  # too many, or we stop
            self.tell(str(refused))
            line.reset()

    async def serve(self, line: Line) -> None:
        """Join one local connection with one in the workload."""
        local = PlainSocket(line)
        try:
            await relay(await self.open(), local)
        except RiverError as failed:
            self.tell(str(failed))
        finally:
            await local.hang_up()


@dataclass(slots=True)
class Senders(asyncio.DatagramProtocol):
    """All who send datagrams to a local port; each has a socket until it is silent for a while."""

    door: Door
    loops: Loops
    _inboxes: dict[Address, "asyncio.Queue[bytes]"] = field(default_factory=dict)
    _transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # the library's class does not say what it is

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if addr not in self._inboxes:
            self._inboxes[addr] = asyncio.Queue(MOST_DATAGRAMS)
            self.loops.spawn(f"datagrams of {addr}", self._serve(addr, self._inboxes[addr]))
        with suppress(asyncio.QueueFull):  # which datagrams may suffer anywhere
            if data:
                self._inboxes[addr].put_nowait(data)

    async def _serve(self, addr: Address, inbox: "asyncio.Queue[bytes]") -> None:
        try:
            inside = await self.door.open()
            try:
                await asyncio.gather(self._inwards(inside, inbox), self._outwards(inside, addr))
            finally:
                await inside.close()
        except (RiverError, ConnectionResetError) as failed:
            self.door.tell(str(failed))
        finally:
            self._inboxes.pop(addr, None)

    async def _inwards(self, inside: RawSocket, inbox: "asyncio.Queue[bytes]") -> None:
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await inbox.get()
                await inside.send(data)
        await inside.close()

    async def _outwards(self, inside: RawSocket, addr: Address) -> None:
        while (message := await inside.receive()) is not None:
            if isinstance(message, bytes) and self._transport is not None:
                self._transport.sendto(message, addr)
        raise ConnectionResetError("the way into the workload broke")


async def forward(doors: Sequence[tuple[Mapping, Door]], opened: Callable[[Mapping, Address], None]) -> None:
    """Listen on all local ports until cancelled; raises BadRequest for one that cannot be had."""
    async with AsyncExitStack() as stack:
        loops = Loops(SystemClock())
        stack.push_async_callback(loops.stop)
        for mapping, door in doors:
            opened(mapping, await _listen(mapping, door, loops, stack))
        await asyncio.get_running_loop().create_future()


async def _listen(mapping: Mapping, door: Door, loops: Loops, stack: AsyncExitStack) -> Address:
    try:
        if door.opening.proto == "udp":
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Senders(door, loops), (mapping.address, mapping.local)
            )
            stack.callback(transport.close)
            address: Address = transport.get_extra_info("sockname")[:2]
            return address
        server = await asyncio.get_running_loop().create_server(
            lambda: Line(partial(door.let_in, loops)), mapping.address, mapping.local
        )
    except OSError as taken:
        raise BadRequest(f"{mapping.address}:{mapping.local} cannot be listened on: {taken.strerror}") from None
    stack.callback(server.close)
    name: Address = server.sockets[0].getsockname()[:2]
    return name
