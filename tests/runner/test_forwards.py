"""Connections to ports of workloads: one a socket or many, both ways, half-closed, with a flow each, torn and refused."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import stream_api, tunnel
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, NotFound
from kohakuriver.model.stream_api import RunnerForward
from kohakuriver.model.tunnel import FLOW, STREAM, UDP, WINDOW_BYTES, Frame, Type
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import error_in
from tests.runner.stage import Stage, play
from tests.runner.test_terminals import settled

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"|end")
    writer.write_eof()


async def say_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")


async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[int]:
    """A server in the network of the workload, which for the fake engine is the test's own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def dial(stage: Stage, port: int, protocol: str = "", proto: str = "tcp") -> RawSocket:
    asked = RunnerForward(task_id=Snowflake(1), attempt=1, port=port, proto=proto)
    socket = await stage.peer.open(stream_api.FORWARD_AT_RUNNER, asked, protocol)
    stage.afterwards(socket.hang_up)
    return socket


def on_stage(directory: Path, script: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole(stage: Stage) -> None:
        async with asyncio.timeout(60):
            await stage.execute("sleep", "1000000")
            await stage.told("running")
            await script(stage)

    play(directory, whole)


async def all_of(socket: RawSocket) -> bytes:
    """What comes until the half-close or the end."""
    parts = []
    while message := await socket.receive():
        assert isinstance(message, bytes)
        parts.append(message)
    return b"".join(parts)


def test_one_stream_is_byte_exact_both_ways_and_half_closes(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        block, times = bytes(range(256)) * 1000, 80

        async def give(socket: RawSocket) -> None:
            for _ in range(times):
                await socket.send(block)
            await socket.send(b"")

        async with listening(echo) as port:
            socket = await dial(stage, port, STREAM)
            _, back = await asyncio.gather(give(socket), all_of(socket))
            assert hashlib.sha256(back).digest() == hashlib.sha256(block * times + b"|end").digest()
            assert await socket.receive() is None and socket.close_code == 1000

    on_stage(tmp_path, script)


def test_what_listens_no_more_may_still_speak_and_the_other_way_round(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        async with listening(say_and_close) as port:
            socket = await dial(stage, port, STREAM)
            assert await all_of(socket) == b"hello"
            await socket.send(b"")
            assert await socket.receive() is None

    on_stage(tmp_path, script)


def test_a_port_where_nobody_listens_is_not_found(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        with pytest.raises(NotFound, match="port 1: "):
            await dial(stage, 1, STREAM)
        socket = await dial(stage, 1)
        await socket.send(Frame(Type.CONNECT, 7).encode())
        refused = tunnel.decode(await socket.receive() or b"")
        assert (refused.type, refused.client) == (Type.ERROR, 7) and b"port 1" in refused.payload
        with pytest.raises(NotFound):
            await stage.peer.open(
                stream_api.FORWARD_AT_RUNNER, RunnerForward(task_id=Snowflake(404), attempt=1, port=1)
            )

    on_stage(tmp_path, script)


def test_a_peer_that_vanishes_takes_its_connections_along(tmp_path: Path) -> None:
    gone: list[int] = []

    async def notice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):  # which is what a vanished peer looks like
            await reader.read()
        gone.append(1)

    async def script(stage: Stage) -> None:
        async with listening(notice) as port:
            (await dial(stage, port, STREAM)).line.transport.abort()
            many = await dial(stage, port, FLOW)
            for client in range(3):
                await many.send(Frame(Type.CONNECT, client).encode())
                await many.receive()
            await many.hang_up()
            await settled(lambda: len(gone) == 4)

    on_stage(tmp_path, script)


class Client:
    """The client's side of frames: reads them all, keeps what each connection got, grants windows."""

    def __init__(self, socket: RawSocket, grants: bool = True) -> None:
        self.socket, self.grants = socket, grants
        self.got: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.windows: dict[int, int] = {}
        self.connected: set[int] = set()
        self.changed = asyncio.Event()

    async def run(self) -> None:
        while (message := await self.socket.receive()) is not None:
            frame = tunnel.decode(message)
            if frame.type is Type.CONNECTED:
                self.connected.add(frame.client)
                self.windows[frame.client] = WINDOW_BYTES
            elif frame.type is Type.DATA:
                self.got.setdefault(frame.client, bytearray()).extend(frame.payload)
                if self.grants:
                    await self.socket.send(frame.answer(Type.WINDOW, tunnel.window(len(frame.payload))).encode())
            elif frame.type is Type.WINDOW:
                self.windows[frame.client] += frame.amount
            elif frame.type in (Type.EOF, Type.CLOSE):
                self.ended.add(frame.client)
            self.changed.set()

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            self.changed.clear()
            await self.changed.wait()

    async def connect(self, client: int, proto: int = 0) -> None:
        await self.socket.send(Frame(Type.CONNECT, client, proto).encode())
        await self.until(lambda: client in self.connected)

    async def send(self, client: int, data: bytes) -> None:
        while data:
            await self.until(lambda: self.windows[client] > 0)
            size = min(self.windows[client], 50_000)
            self.windows[client] -= size
            await self.socket.send(Frame(Type.DATA, client, payload=data[:size]).encode())
            data = data[size:]

    async def close(self, client: int) -> None:
        await self.socket.send(Frame(Type.EOF, client).encode())
        await self.until(lambda: client in self.ended)


@asynccontextmanager
async def framed(stage: Stage, port: int, protocol: str = FLOW, **more: Any) -> AsyncIterator[Client]:
    client = Client(await dial(stage, port, protocol), **more)
    reading = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        await client.socket.close()
        await reading


def test_sixty_four_connections_share_a_socket_and_none_gets_what_is_anothers(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        async with listening(echo) as port, framed(stage, port) as client:

            async def one(number: int) -> None:
                data = number.to_bytes(2, "big") * 60_000
                await client.connect(number)
                await client.send(number, data)
                await client.close(number)
                assert client.got[number] == data + b"|end"

            await asyncio.gather(*(one(number) for number in range(64)))

    on_stage(tmp_path, script)


def test_a_connection_that_nobody_reads_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        async def choosy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.readexactly(1) == b"n":
                await never_read(reader, writer)
            await echo(reader, writer)

        async with listening(choosy) as port, framed(stage, port) as client:
            await client.connect(1)
            await client.connect(2)
            stuck = asyncio.create_task(client.send(1, b"n" + bytes(12_000_000)))
            data = b"e" + bytes(2_000_000)
            await client.send(2, data)
            await client.close(2)
            assert client.got[2] == data[1:] + b"|end" and not stuck.done()
            stuck.cancel()
            await asyncio.wait([stuck])

    on_stage(tmp_path, script)


def test_a_client_that_grants_nothing_gets_no_more_than_the_window(tmp_path: Path) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(100_000))
            await writer.drain()

    async def script(stage: Stage) -> None:
        async with listening(pour) as port, framed(stage, port, grants=False) as client:
            await client.connect(1)
            await client.until(lambda: len(client.got.get(1, b"")) == WINDOW_BYTES)
            await asyncio.sleep(0.2)
            assert len(client.got[1]) == WINDOW_BYTES

    on_stage(tmp_path, script)


def test_plain_frames_without_flow_control_work_too(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        async with listening(say_and_close) as port, framed(stage, port, "", grants=False) as client:
            await client.connect(5)
            await client.until(lambda: 5 in client.ended)
            assert client.got[5] == b"hello"
            await client.socket.send(Frame(Type.PING, payload=b"x").encode())

    on_stage(tmp_path, script)


@pytest.mark.parametrize("protocol", [STREAM, FLOW])
def test_datagrams_go_both_ways_and_keep_their_borders(tmp_path: Path, protocol: str) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"[" + data + b"]", addr)

    async def script(stage: Stage) -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        if protocol == STREAM:
            socket = await dial(stage, port, STREAM, "udp")
            for data in (b"one", b"two" * 300):
                await socket.send(data)
                assert await socket.receive() == b"[" + data + b"]"
        else:
            async with framed(stage, port) as client:
                await client.connect(1, UDP)
                await client.socket.send(Frame(Type.DATA, 1, UDP, payload=b"one").encode())
                await client.until(lambda: bytes(client.got.get(1, b"")) == b"[one]")
        transport.close()

    on_stage(tmp_path, script)


@pytest.mark.parametrize(
    "garbage", ["text", b"", b"\0" * 8, b"\x03\x02" + bytes(6), b"\x0a\0" + bytes(6), b"\x08\0" + bytes(7)]
)
def test_what_is_no_frame_is_a_protocol_error_and_nothing_else(tmp_path: Path, garbage: bytes | str) -> None:
    async def script(stage: Stage) -> None:
        async with listening(echo) as port:
            socket = await dial(stage, port, FLOW)
            await socket.send(Frame(Type.CONNECT, 0).encode())
            await socket.receive()
            await socket.send(garbage)
            while await socket.receive() is not None:
                pass
            assert isinstance(error_in(socket.close_code, socket.close_reason), BadRequest)

    on_stage(tmp_path, script)


def test_opening_and_closing_again_and_again_leaves_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        import os

        async with listening(echo) as port:
            for number in range(60):
                socket = await dial(stage, port, STREAM)
                await socket.send(b"x")
                await (socket.close() if number % 2 else socket.hang_up())
                if number == 10:
                    await asyncio.sleep(0.2)
                    before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
            await settled(lambda: len(os.listdir("/proc/self/fd")) <= before[0] + 4)
            await settled(lambda: len(asyncio.all_tasks()) <= before[1] + 4)

    on_stage(tmp_path, script)
