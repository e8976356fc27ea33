"""Ways into containers that dialled us: connections to their ports, in frames over the socket that each of them holds.

Here the runner is who opens connections and chooses ids. It is the way of forwards where a network cannot be entered.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from kohakuriver.model import tunnel
from kohakuriver.model.errors import BadRequest, NotFound, TooMany
from kohakuriver.model.tunnel import TCP, UDP, Frame, Type
from kohakuriver.runner.tunnel import MOST_CONNECTIONS, PENDING_BYTES, PIECE_BYTES, Connection, Window
from kohakuriver.system.conduit import Conduit
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.wire.sockets import GOING_AWAY, Socket

CONNECT_SECONDS = 10.0
MOST_TEXT = 200


@dataclass(slots=True, eq=False)
class Lane(Conduit):
    """One connection over a way; `answered` is what became of its opening: None, or why there is none."""

    way: "Way"
    connection: Connection
    answered: "asyncio.Future[str | None]"
    ended: bool = False

    async def read(self) -> bytes:
        if self.ended:
            return b""
        data = await self.connection.get()
        self.ended = not data
        if data and self.way.has_flow:
            with suppress(ConnectionResetError):
                await self._say(Type.WINDOW, tunnel.window(len(data)))
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            is_whole = self.connection.opening.proto == UDP
            taken = len(view) if is_whole else await self.connection.window.take(min(len(view), PIECE_BYTES))
            if self.connection.closed:
                raise ConnectionResetError("the workload has closed the connection")
            await self._say(Type.DATA, bytes(view[:taken]))
            view = view[taken:]

    async def write_eof(self) -> None:
        if self.way.has_flow and not self.connection.closed:  # plain frames cannot say it
            with suppress(ConnectionResetError):
                await self._say(Type.EOF)

    async def close(self) -> None:
        if self.way.forget(self.connection.opening.client):
            self.connection.close()
            with suppress(ConnectionResetError):
                await self._say(Type.CLOSE)

    def refuse(self, why: str) -> None:
        """The container has no such connection (any more)."""
        if not self.answered.done():
            self.answered.set_result(why)
        self.connection.close()

    async def _say(self, kind: Type, payload: bytes = b"") -> None:
        await self.way.send(self.connection.opening.answer(kind, payload))


@dataclass(slots=True, eq=False)
class Way:
    """All connections over the socket of one container."""

    socket: Socket
    has_flow: bool
    _lanes: dict[int, Lane] = field(default_factory=dict)
    _latest: int = 0

    async def serve(self) -> None:
        """Until the socket ends; raises BadRequest for what is no frame, or has no place."""
        try:
            while (message := await self.socket.receive()) is not None:
                await self._take(tunnel.decode(message))
        finally:
            for lane in self._lanes.values():
                lane.refuse("the container has hung up")
            self._lanes.clear()

    async def connect(self, proto: str, port: int) -> Lane:
        """A connection to a port inside; raises NotFound, TooMany, ConnectionResetError."""
        if len(self._lanes) >= MOST_CONNECTIONS:
            raise TooMany("too many connections to this container", {"retry_after_seconds": 10})
        self._latest = (self._latest + 1) % 2**32  # those that far back are closed long since
        opening = Frame(Type.CONNECT, self._latest, UDP if proto == "udp" else TCP, port)
        lane = Lane(self, Connection(opening, Window(self.has_flow)), asyncio.get_running_loop().create_future())
        lane.connection.room.set()
        self._lanes[opening.client] = lane
        why: str | None = "it does not answer"
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self.send(opening)
                    why = await lane.answered
        finally:
            if why is not None:
                await lane.close()
        if why is not None:
            raise NotFound(f"port {port}: {why}")
        return lane

    async def send(self, frame: Frame) -> None:
        """Raises ConnectionResetError when the container is gone."""
        await self.socket.send(frame.encode())

    def forget(self, client: int) -> bool:
        """Whether there was such a connection until now."""
        return self._lanes.pop(client, None) is not None

    async def _take(self, frame: Frame) -> None:
        if frame.type is Type.PING:
            return await self.send(frame.answer(Type.PONG, frame.payload))
        if frame.type is Type.CONNECT:
            raise BadRequest("frame: CONNECT has no place here")
        lane = self._lanes.get(frame.client)
        if lane is None:
            return None  # it was closed here while this was on its way
        match frame.type:
            case Type.CONNECTED:
                if not lane.answered.done():
                    lane.answered.set_result(None)
            case Type.DATA:
                await self._take_data(lane.connection, frame.payload)
            case Type.EOF:
                lane.connection.put(b"")
            case Type.CLOSE:
                self._take_close(lane)
            case Type.ERROR:
                lane.refuse(_said(frame.payload))
            case Type.WINDOW:
                lane.connection.window.grant(frame.amount)
        return None

    async def _take_data(self, connection: Connection, data: bytes) -> None:
        if self.has_flow and connection.pending_bytes + len(data) > PENDING_BYTES:
            raise BadRequest("frame: more DATA than the window allows")
        if data and not connection.closed:
            connection.put(data)
        await connection.room.wait()  # without flow control one slow connection holds up all: there is no other brake

    def _take_close(self, lane: Lane) -> None:
        """What came before is still to be read."""
        if not lane.answered.done():
            lane.refuse("it was closed at once")
        elif not lane.connection.closed:
            lane.connection.put(b"")


async def join(socket: Socket, lane: Lane) -> None:
    """Be one connection between a socket and a lane until both directions have ended, or the socket is gone."""
    ends = 0

    async def one_end() -> None:
        nonlocal ends
        ends += 1
        if ends == 2:
            await socket.close()

    async def inwards() -> None:
        while (message := await socket.receive()) is not None:
            data = message.encode() if isinstance(message, str) else message
            with suppress(ConnectionResetError):  # it listens no more; what it says may still be wanted
                await (lane.write(data) if data else lane.write_eof())
            if not data:
                await one_end()
        await lane.close()

    async def outwards() -> None:
        while data := await lane.read():
            await socket.send(data)
        await socket.send(b"")
        await one_end()

    try:
        await socket.open(tunnel.STREAM)
        await asyncio.gather(inwards(), outwards())
    finally:
        await lane.close()


def _said(payload: bytes) -> str:
    """What a container says, for a person: one short line."""
    text = payload[: 4 * MOST_TEXT].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else " " for each in text)[:MOST_TEXT].strip() or "refused"


@dataclass(slots=True)
class Ways:
    """The ways there are just now, one to a container: the newest."""

    _ways: dict[WorkloadKey, Way] = field(default_factory=dict)

    def find(self, key: WorkloadKey) -> Way | None:
        """The way into an attempt, if its container has dialled."""
        return self._ways.get(key)

    async def serve(self, key: WorkloadKey, way: Way) -> None:
        """Be the way into an attempt until the socket ends, or the container dials again."""
        before = self._ways.get(key)
        self._ways[key] = way
        try:
            if before is not None:
                await before.socket.close(GOING_AWAY, "the container has dialled again")
            await way.serve()
        finally:
            if self._ways.get(key) is way:
                del self._ways[key]
