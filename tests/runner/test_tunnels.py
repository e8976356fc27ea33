"""Containers that dial their runner: who gets in, and forwards that come to their ports by the frames of the tunnel."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from kohakuriver.model import tunnel
from kohakuriver.model.errors import BadRequest, EngineFailed, NotFound
from kohakuriver.model.tunnel import FLOW, STREAM, WINDOW_BYTES, Frame, Type
from kohakuriver.runner.tunnel_door import HEADER, TunnelDoor
from kohakuriver.system import netns
from kohakuriver.wire.sockets import error_in
from tests.runner.stage import Stage, key, play
from tests.runner.test_forwards import all_of, dial, echo, listening, never_read
from tests.runner.test_terminals import settled


class Inside:
    """The program in a container: dials with what it finds in its environment, and connects to its own loopback."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws, self.has_flow = ws, ws.protocol == FLOW
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.windows: dict[int, int] = {}
        self.may_send = asyncio.Event()
        self.busy: set[asyncio.Task[None]] = set()
        self.heard: list[Type] = []

    async def serve(self) -> None:
        async for message in self.ws:
            frame = tunnel.decode(message.data)
            self.heard.append(frame.type)
            if frame.type is Type.CONNECT:
                task = asyncio.create_task(self._connect(frame))
                self.busy.add(task)
                task.add_done_callback(self.busy.discard)
            elif frame.type is Type.WINDOW:
                self.windows[frame.client] += frame.amount
                self.may_send.set()
            elif writer := self.writers.get(frame.client):
                await self._hand_in(frame, writer)
        for each in (*self.writers.values(),):
            each.close()

    async def _hand_in(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        if frame.type is Type.DATA:
            writer.write(frame.payload)
            await writer.drain()
            if self.has_flow:
                await self.say(frame, Type.WINDOW, tunnel.window(len(frame.payload)))
        elif frame.type is Type.EOF:
            writer.write_eof()
        elif frame.type is Type.CLOSE:
            writer.close()

    async def _connect(self, frame: Frame) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", frame.port)
        except OSError:
            return await self.say(frame, Type.ERROR, b"nobody \x1b[2J listens")
        self.writers[frame.client], self.windows[frame.client] = writer, WINDOW_BYTES
        await self.say(frame, Type.CONNECTED)
        with suppress(OSError):
            while data := await reader.read(50_000):
                while self.has_flow and self.windows[frame.client] < len(data):
                    self.may_send.clear()
                    await self.may_send.wait()
                self.windows[frame.client] -= len(data)
                await self.say(frame, Type.DATA, data)
        await self.say(frame, Type.EOF if self.has_flow else Type.CLOSE)

    async def say(self, frame: Frame, kind: Type, payload: bytes = b"") -> None:
        with suppress(aiohttp.ClientConnectionResetError):
            await self.ws.send_bytes(frame.answer(kind, payload).encode())


@asynccontextmanager
async def dialled(stage: Stage, protocol: str = FLOW, **headers: str) -> AsyncIterator[Inside]:
    """A container that has dialled, with what its environment says."""
    env = stage.node.workloads[key()].spec.env
    proof = {HEADER: env["KOHAKURIVER_TUNNEL_SIGNATURE"], **headers}
    protocols = (protocol,) if protocol else ()
    async with aiohttp.ClientSession() as http:
        url = stage.runner.url + urlsplit(env["KOHAKURIVER_TUNNEL_URL"]).path  # a test's runner has any port
        async with http.ws_connect(url, headers=proof, protocols=protocols) as ws:
            inside = Inside(ws)
            serving = asyncio.create_task(inside.serve())
            try:
                yield inside
            finally:
                await ws.close()
                await serving
                for each in inside.busy:
                    each.cancel()
                await asyncio.gather(*inside.busy, return_exceptions=True)


async def status_of(stage: Stage, container: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as http:
        url = f"{stage.runner.url}/ws/tunnel/{container}"
        async with http.get(url, headers={"Connection": "Upgrade", "Upgrade": "websocket", **headers}) as answer:
            return answer.status


def on_stage(directory: Path, script: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    async def whole(stage: Stage) -> None:
        async with asyncio.timeout(60):
            await stage.start_runner(**{"tunnel_enabled": True} | settings)
            await stage.at_rest()
            await stage.execute("sleep", "1000000")
            await stage.told("running")
            await script(stage)

    play(directory, whole, runner=False)


@pytest.fixture
def closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that cannot enter the networks of its workloads."""

    async def cannot(*_: Any) -> None:
        raise EngineFailed("the network of the workload cannot be entered: the runner is not root")

    monkeypatch.setattr(netns, "connect_anywhere", cannot)


def test_nothing_of_it_is_there_unless_it_was_turned_on(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        assert not [name for name in stage.node.workloads[key()].spec.env if "TUNNEL" in name]
        for proof in (TunnelDoor(b"", "x").variables("kohakuriver-task-1"), TunnelDoor(bytes(32), "x").variables("x")):
            given = {HEADER: proof.get("KOHAKURIVER_TUNNEL_SIGNATURE", "kohakuriver-task-1;")}
            assert await status_of(stage, "kohakuriver-task-1", **given) == 401
        assert not (tmp_path / "state" / "tunnel_secret").exists()

    on_stage(tmp_path, script, tunnel_enabled=False)


def test_a_container_gets_in_by_its_own_signature_and_nobody_by_any_other(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        env = stage.node.workloads[key()].spec.env
        own = env["KOHAKURIVER_TUNNEL_SIGNATURE"]
        name, _, signature = own.partition(";")
        assert env["KOHAKURIVER_TUNNEL_URL"] == f"{stage.runner.url}/ws/tunnel/{name}"
        others = (
            signature,
            f"{name};",
            f";{signature}",
            f"{name};{'0' * 64}",
            f"kohakuriver-task-2;{signature}",
            "é;é",
        )
        for wrong in others:
            assert await status_of(stage, name, **{HEADER: wrong}) == 401, wrong
        assert await status_of(stage, name) == 401
        assert await status_of(stage, "kohakuriver-task-2", **{HEADER: own}) == 401
        assert await status_of(stage, "host", **{HEADER: own}) == 400
        for path in ("/api/health", "/ws/task/1/terminal?attempt=1&user=ada"):
            async with (
                aiohttp.ClientSession() as http,
                http.get(stage.runner.url + path, headers={HEADER: own}) as said,
            ):
                assert said.status in (401, 403)
        await stage.another_runner(tunnel_enabled=True)
        await stage.at_rest()
        async with dialled(stage):  # it is good as long as the container, whatever lives its runner has
            pass

    on_stage(tmp_path, script)


def test_only_a_container_that_is_there_is_let_in(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        made = stage.runner.bench.door.variables("kohakuriver-task-9")["KOHAKURIVER_TUNNEL_SIGNATURE"]
        assert await status_of(stage, "kohakuriver-task-9", **{HEADER: made}) == 404
        vps = stage.runner.bench.door.variables("kohakuriver-vps-1")["KOHAKURIVER_TUNNEL_SIGNATURE"]
        assert await status_of(stage, "kohakuriver-vps-1", **{HEADER: vps}) == 404

    on_stage(tmp_path, script)


@pytest.mark.parametrize("protocol", [FLOW, ""])
def test_a_forward_takes_the_way_of_the_container_where_there_is_no_other(
    tmp_path: Path, closed_network: None, protocol: str
) -> None:
    async def script(stage: Stage) -> None:
        data = bytes(range(256)) * 8_000

        async def give(socket: Any) -> None:
            for at in range(0, len(data), 100_000):
                await socket.send(data[at : at + 100_000])
            if protocol:
                await socket.send(b"")

        async with listening(echo) as port:
            with pytest.raises(EngineFailed, match="not root"):
                await dial(stage, port, STREAM)
            async with dialled(stage, protocol):
                for _ in range(2):
                    socket = await dial(stage, port, STREAM)
                    wanted = data + b"|end" if protocol else data
                    giving, found = asyncio.create_task(give(socket)), b""
                    while len(found) < len(wanted):
                        message = await socket.receive()
                        assert isinstance(message, bytes)
                        found += message
                    await giving
                    assert hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest()
                    await socket.close()
            with pytest.raises(EngineFailed):
                await dial(stage, port, STREAM)

    on_stage(tmp_path, script)


def test_what_was_said_before_the_end_is_still_heard(tmp_path: Path, closed_network: None) -> None:
    async def script(stage: Stage) -> None:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"x" * 100_000)

        async with listening(say) as port, dialled(stage, ""):
            assert await all_of(await dial(stage, port, STREAM)) == b"x" * 100_000

    on_stage(tmp_path, script)


def test_a_port_where_nobody_listens_is_not_found_and_what_the_container_says_is_one_clean_line(
    tmp_path: Path, closed_network: None
) -> None:
    async def script(stage: Stage) -> None:
        async with dialled(stage):
            with pytest.raises(NotFound) as refused:
                await dial(stage, 1, STREAM)
            assert str(refused.value) == "port 1: nobody  [2J listens"

    on_stage(tmp_path, script)


def test_a_connection_that_nobody_reads_holds_up_no_other(tmp_path: Path, closed_network: None) -> None:
    async def script(stage: Stage) -> None:
        async with listening(never_read) as stuck_port, listening(echo) as port, dialled(stage):
            stuck = await dial(stage, stuck_port, STREAM)
            giving = asyncio.create_task(stuck.send(bytes(1_000_000)))
            quick = await dial(stage, port, STREAM)
            await quick.send(b"quick")
            assert await quick.receive() == b"quick"
            giving.cancel()
            await asyncio.wait([giving])

    on_stage(tmp_path, script)


def test_who_dials_again_is_the_way_from_then_on(tmp_path: Path, closed_network: None) -> None:
    async def script(stage: Stage) -> None:
        async with listening(echo) as port, dialled(stage) as first, dialled(stage) as second:
            await settled(lambda: first.ws.closed)
            socket = await dial(stage, port, STREAM)
            await socket.send(b"hello")
            assert await socket.receive() == b"hello"
            assert Type.CONNECT in second.heard and Type.CONNECT not in first.heard

    on_stage(tmp_path, script)


def test_a_container_that_hangs_up_takes_its_connections_along(tmp_path: Path, closed_network: None) -> None:
    async def script(stage: Stage) -> None:
        async with listening(never_read) as port:
            async with dialled(stage):
                socket = await dial(stage, port, STREAM)
            assert await all_of(socket) == b""
            await socket.send(b"")
            assert await socket.receive() is None
        await settled(lambda: stage.runner.ways.find(key()) is None)

    on_stage(tmp_path, script)


@pytest.mark.parametrize("garbage", ["text", b"", b"\x03\x02" + bytes(6), Frame(Type.CONNECT, 1).encode()])
def test_what_a_container_may_not_say_is_a_protocol_error(tmp_path: Path, garbage: bytes | str) -> None:
    async def script(stage: Stage) -> None:
        async with dialled(stage) as inside:
            await (inside.ws.send_str(garbage) if isinstance(garbage, str) else inside.ws.send_bytes(garbage))
            await settled(lambda: inside.ws.closed)
            reason = stage.runner.ways.find(key())
            assert reason is None and inside.ws.close_code == 4000 + BadRequest.status
            assert isinstance(error_in(inside.ws.close_code, "bad_request: x"), BadRequest)

    on_stage(tmp_path, script)
