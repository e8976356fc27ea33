"""Many connections over one socket: frames in, connections into a workload's network out, each with its own flow."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kohakuriver.model import tunnel
from kohakuriver.model.errors import BadRequest, RiverError
from kohakuriver.model.tunnel import UDP, WINDOW_BYTES, Frame, Type
from kohakuriver.system.conduit import Conduit
from kohakuriver.system.loops import Loops
from kohakuriver.wire.sockets import Socket

MOST_CONNECTIONS = 1024
PENDING_BYTES = 2 * WINDOW_BYTES
PIECE_BYTES = 64 * 1024
Reach = Callable[[str, int], Awaitable[Conduit]]


class Window:
    """How much may be sent on a connection; without flow control always more."""

    def __init__(self, is_limited: bool) -> None:
        self._left = WINDOW_BYTES if is_limited else None
        self._more = asyncio.Event()

    async def take(self, wanted_bytes: int) -> int:
        """Take up to so much, waiting until there is any."""
        if self._left is None:
            return wanted_bytes
        while self._left <= 0:
            self._more.clear()
            await self._more.wait()
        taken = min(wanted_bytes, self._left)
        self._left -= taken
        return taken

    def grant(self, more_bytes: int) -> None:
        """So much more may be sent."""
        if self._left is not None:
            self._left += more_bytes
            self._more.set()


@dataclass(slots=True, eq=False)
class Connection:
    """One of them; what came for it waits in `inbox` (empty bytes: no more will come)."""

    opening: Frame
    window: Window
    inbox: deque[bytes] = field(default_factory=deque)
    pending_bytes: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    conduit: Conduit | None = None

    def put(self, data: bytes) -> None:
        self.inbox.append(data)
        self.pending_bytes += len(data)
        if self.pending_bytes >= PENDING_BYTES:
            self.room.clear()
        self.heard.set()

    async def get(self) -> bytes:
        """What came next, to be handed on; empty at the end."""
        while not self.inbox:
            if self.closed:
                return b""
            self.heard.clear()
            await self.heard.wait()
        data = self.inbox.popleft()
        self.pending_bytes -= len(data)
        self.room.set()
        return data

    def close(self) -> None:
        """Nothing more comes, and nothing more is wanted."""
        self.closed = True
        self.inbox.clear()
        self.window.grant(1 << 40)
        self.heard.set()
        self.room.set()


@dataclass(slots=True)
class Tunnel:
    """All connections of one socket; `reach` opens one, given `tcp` or `udp` and a port."""

    socket: Socket
    reach: Reach
    loops: Loops
    port: int
    has_flow: bool
    _connections: dict[int, Connection] = field(default_factory=dict)

    async def serve(self) -> None:
        """Until the socket ends; raises BadRequest for what is no frame, or has no place."""
        try:
            while (message := await self.socket.receive()) is not None:
                await self._take(tunnel.decode(message))
        finally:
            for connection in list(self._connections.values()):
                connection.close()

    async def _take(self, frame: Frame) -> None:
        if frame.type is Type.PING:
            return await self._send(frame.answer(Type.PONG, frame.payload))
        if frame.type is Type.CONNECT:
            return await self._connect(frame)
        connection = self._connections.get(frame.client)
        if connection is None or connection.closed:
            return None  # it was closed here while this was on its way
        match frame.type:
            case Type.DATA:
                await self._take_data(connection, frame.payload)
            case Type.EOF:
                connection.put(b"")
            case Type.WINDOW:
                connection.window.grant(frame.amount)
            case Type.CLOSE | Type.ERROR:
                connection.close()
            case _:
                raise BadRequest(f"frame: {frame.type.name} has no place here")

    async def _take_data(self, connection: Connection, data: bytes) -> None:
        if self.has_flow and connection.pending_bytes + len(data) > PENDING_BYTES:
            raise BadRequest("frame: more DATA than the window allows")
        if data:
            connection.put(data)
        await connection.room.wait()  # without flow control one slow connection holds up all: there is no other brake

    async def _connect(self, frame: Frame) -> None:
        if frame.client in self._connections:
            raise BadRequest(f"frame: client {frame.client} is connected already")
        if frame.port not in (0, self.port):
            return await self._send(frame.answer(Type.ERROR, f"this socket leads to port {self.port}".encode()))
        if len(self._connections) >= MOST_CONNECTIONS:
            return await self._send(frame.answer(Type.ERROR, b"too many connections"))
        connection = self._connections[frame.client] = Connection(frame, Window(self.has_flow))
        connection.room.set()
        self.loops.spawn(f"connection {frame.client}", self._run(connection))

    async def _run(self, connection: Connection) -> None:
        opening = connection.opening
        try:
            connection.conduit = await self.reach("udp" if opening.proto == UDP else "tcp", self.port)
            await self._send(opening.answer(Type.CONNECTED))
            await asyncio.gather(self._to_workload(connection), self._to_client(connection))
        except RiverError as failed:
            await self._try_to_send(opening.answer(Type.ERROR, str(failed).encode()))
        except ConnectionResetError:
            pass
        finally:
            connection.close()
            self._connections.pop(opening.client, None)
            if connection.conduit is not None:
                await connection.conduit.close()

    async def _to_workload(self, connection: Connection) -> None:
        assert connection.conduit is not None
        while data := await connection.get():
            try:
                await connection.conduit.write(data)
            except OSError:
                break  # it listens no more; what it says may still be wanted
            if self.has_flow:
                await self._send(connection.opening.answer(Type.WINDOW, tunnel.window(len(data))))
        if connection.closed:
            await connection.conduit.close()
        else:
            await connection.conduit.write_eof()

    async def _to_client(self, connection: Connection) -> None:
        assert connection.conduit is not None
        answer = connection.opening.answer
        while (data := await connection.conduit.read()) and not connection.closed:
            if connection.opening.proto == UDP:
                await self._send(answer(Type.DATA, data))
                continue
            view = memoryview(data)
            while view:
                taken = await connection.window.take(min(len(view), PIECE_BYTES))
                await self._send(answer(Type.DATA, bytes(view[:taken])))
                view = view[taken:]
        if not connection.closed:
            await self._end(connection)

    async def _end(self, connection: Connection) -> None:
        """The workload says no more: with flow control the other direction may go on."""
        if self.has_flow:
            await self._send(connection.opening.answer(Type.EOF))
        else:
            await self._send(connection.opening.answer(Type.CLOSE))
            connection.close()

    async def _send(self, frame: Frame) -> None:
        await self.socket.send(frame.encode())

    async def _try_to_send(self, frame: Frame) -> None:
        try:
            await self._send(frame)
        except ConnectionResetError:
            pass
