"""Sockets over real connections: both kinds of upgrade, what is refused before it, and how either side may end it."""

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from socket import socketpair
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.errors import Conflict, NodeUnreachable, NotFound, NotLoggedIn
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.route import Channel
from kohakuriver.system.certificates import make_identity
from kohakuriver.wire import raw
from kohakuriver.wire.call import NotDelivered, Peer
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.line import connected
from kohakuriver.wire.listen import listening
from kohakuriver.wire.pinning import context_for
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.relay import relay
from kohakuriver.wire.serve import Edge, Identify, build_app
from kohakuriver.wire.sign import Signer, SteadyTime
from kohakuriver.wire.sockets import GOING_AWAY, LOGIN_ENDED, LOST, NORMAL, Message, Socket, error_in
from tests.wire.rig import by_header, by_signature

KEY = b"k" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is asked for."""

    key: str = declare("A name in the path.", bounds=Bounds(length=64))
    number: int = declare("How many.", default=0, bounds=Bounds(least=0, most=9))


ECHO = Channel("echo", "/ws/echo/{key}", Place, Role.NODE, "Says it again.", Ownership.NODE)
OTHER = Channel("other", "/ws/other/{key}", Place, Role.NODE, "Another.")
Serve = Callable[["Rig", Socket], Awaitable[None]]


@dataclass
class Rig:
    """One channel, served; `serve` is what its handler does, `cuts` those who would cut it."""

    serve: Serve
    port: int = 0
    asked: list[Place] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    cuts: list[Callable[[], None]] = field(default_factory=list)

    def peer(self, http: aiohttp.ClientSession, key: bytes = KEY) -> Peer:
        return Peer(http, f"http://127.0.0.1:{self.port}", Signer("n1", key, SteadyTime()))

    async def dial(self, target: str = "/ws/echo/mine", **headers: str) -> raw.Answered:
        return await raw.dial(raw.Address("127.0.0.1", self.port), target, {"X-Role": "node"} | headers)

    async def socket(self, target: str = "/ws/echo/mine") -> RawSocket:
        answered = await self.dial(target)
        assert answered.socket is not None, answered
        return answered.socket


async def guard(rig: Rig, caller: Caller, owns: Ownership, asked: Any) -> None:
    if asked.key != "mine":
        raise NotFound(f"there is no {asked.key}")


async def handle(rig: Rig, caller: Caller, asked: Place, socket: Socket) -> None:
    rig.asked.append(asked)
    try:
        await rig.serve(rig, socket)
    finally:
        rig.ended.append(socket.close_code)


async def echo(rig: Rig, socket: Socket) -> None:
    await socket.open(socket.offers[0] if socket.offers else "")
    while (message := await socket.receive()) is not None:
        await socket.send(message)


@asynccontextmanager
async def rigged(
    serve: Serve = echo, identify: Identify = by_header, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Rig]:
    rig = Rig(serve)

    def watch(caller: Caller, cut: Callable[[], None]) -> Any:
        rig.cuts.append(cut)
        return nullcontext()

    app = build_app([ECHO], [on_channel(ECHO, handle)], Edge(rig, identify, guard, watch=watch))
    async with listening(app, "127.0.0.1", 0, tls) as port:
        rig.port = port
        yield rig


def play(
    script: Callable[[Rig, aiohttp.ClientSession], Awaitable[None]],
    serve: Serve = echo,
    identify: Identify = by_header,
) -> Rig:
    """Run a script against the channel; afterwards nothing of it may be left."""

    async def body() -> Rig:
        async with (
            asyncio.timeout(30),
            aiohttp.ClientSession(headers={"X-Role": "node"}) as http,
            rigged(serve, identify) as rig,
        ):
            await script(rig, http)
            return rig

    return asyncio.run(body())


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.005)


MESSAGES: list[Message] = ["", "text é\0\U0001f30a", b"", bytes(range(256)), b"x" * 300_000, "y" * 100_000]


def test_messages_come_back_as_they_were_sent_over_both_kinds_of_upgrade() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket("/ws/echo/mine?number=3")
        for message in MESSAGES:
            await socket.send(message)
            assert await socket.receive() == message
        await socket.close()
        async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine", compress=0) as ws:
            for message in MESSAGES:
                await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
                assert (await ws.receive()).data == message
        await until(lambda: rig.ended == [NORMAL, NORMAL])
        assert rig.asked == [Place(key="mine", number=3), Place(key="mine")]

    play(script)


@pytest.mark.parametrize("offered", [[], ["one"], ["one", "two"]])
def test_the_first_protocol_that_is_offered_can_be_chosen(offered: list[str]) -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine", protocols=offered) as ws:
            assert ws.protocol == (offered[0] if offered else None)
        answered = await rig.dial(**{raw.PROTOCOL_HEADER: ", ".join(offered)} if offered else {})
        assert answered.socket is not None and answered.socket.protocol == (offered[0] if offered else "")
        await answered.socket.close()

    play(script)


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/ws/echo/yours", {}, 404),
        ("/ws/echo/mine", {"X-Role": "admin"}, 403),
        ("/ws/echo/mine", {"X-Role": "anony"}, 401),
        ("/ws/echo/mine?number=10", {}, 400),
        ("/ws/echo/mine?stray=1", {}, 400),
        ("/ws/echo/mine?number=1&number=2", {}, 400),
        ("/ws/echo/mine", {"Origin": "http://evil.example"}, 403),
        ("/ws/nothing", {}, 404),
    ],
)
def test_what_is_refused_is_refused_before_it_becomes_a_socket(
    target: str, headers: dict[str, str], status: int
) -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        answered = await rig.dial(target, **headers)
        assert answered.status == status and json.loads(answered.body)["error"]["message"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"http://127.0.0.1:{rig.port}{target}", headers=headers)
        assert refused.value.status == status
        assert not rig.asked

    play(script)


def test_a_plain_request_is_told_that_this_is_a_socket() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        async with http.get(f"http://127.0.0.1:{rig.port}/ws/echo/mine") as answer:
            assert answer.status == 400 and "WebSocket" in (await answer.json())["error"]["message"]

    play(script)


def test_an_error_before_the_opening_is_an_answer_and_after_it_a_close_code() -> None:
    async def refuse(rig: Rig, socket: Socket) -> None:
        if rig.asked[-1].number:
            await socket.open()
        raise Conflict("it is asleep")

    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        assert (await rig.dial()).status == 409
        socket = await rig.socket("/ws/echo/mine?number=1")
        assert await socket.receive() is None
        assert (socket.close_code, socket.close_reason) == (4409, "conflict: it is asleep")
        error = error_in(socket.close_code, socket.close_reason)
        assert isinstance(error, Conflict) and str(error) == "it is asleep"
        async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine?number=1") as ws:
            assert (await ws.receive()).data == 4409

    play(script, refuse)


def test_who_may_no_longer_be_there_is_told_and_cut_off() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket()
        async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine") as ws:
            await until(lambda: len(rig.cuts) == 2 and len(rig.asked) == 2)
            for cut in rig.cuts:
                cut()
            assert await socket.receive() is None and (await ws.receive()).data == LOGIN_ENDED
            assert isinstance(error_in(socket.close_code, socket.close_reason), NotLoggedIn)
        assert rig.ended == [LOGIN_ENDED, LOGIN_ENDED]

    play(script)


def test_a_program_that_stops_tells_its_sockets() -> None:
    async def body() -> None:
        async with asyncio.timeout(30), aiohttp.ClientSession(headers={"X-Role": "node"}) as http:
            async with rigged() as rig:
                socket = await rig.socket()
                ws = await http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine")
                await until(lambda: len(rig.asked) == 2)
            assert await socket.receive() is None and socket.close_code == GOING_AWAY
            assert (await ws.receive()).data == GOING_AWAY
            await ws.close()

    asyncio.run(body())


def test_a_peer_that_vanishes_is_lost_and_no_failure() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket()
        await until(lambda: rig.asked)
        socket.line.transport.abort()
        await until(lambda: rig.ended == [LOST])
        with pytest.raises(ConnectionResetError):
            await socket.send(b"x")

    play(script)


def test_a_slow_reader_holds_up_the_writer_and_not_its_memory() -> None:
    sent = 0

    async def pour(rig: Rig, socket: Socket) -> None:
        nonlocal sent
        await socket.open()
        while sent < 200_000_000:
            await socket.send(bytes(100_000))
            sent += 100_000

    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 30_000_000
        await socket.hang_up()
        await until(lambda: rig.ended)

    play(script, pour)


def test_host_and_runner_trust_each_other_by_their_key() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        peer = rig.peer(http)
        for _ in range(2):
            socket = await peer.open(ECHO, Place(key="mine"), "one")
            await socket.send("hello")
            assert (await socket.receive(), socket.protocol) == ("hello", "one")
            await socket.close()
        with pytest.raises(NotFound):
            await peer.open(ECHO, Place(key="yours"))
        with pytest.raises(NotLoggedIn):
            await rig.peer(http, b"wrong" * 8).open(ECHO, Place(key="mine"))

    play(script, identify=by_signature(lambda name: KEY, SteadyTime()))


def test_a_server_without_the_key_is_not_believed() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        with pytest.raises(NodeUnreachable, match="not signed with our key"):
            await rig.peer(http).open(OTHER, Place(key="mine"))
        rig.port = 1
        with pytest.raises(NotDelivered):
            await rig.peer(http).open(ECHO, Place(key="mine"))

    play(script, identify=lambda incoming: by_header(incoming))


def test_over_tls_it_is_the_same_and_only_the_known_certificate_is_believed(tmp_path: Path) -> None:
    identity = make_identity(tmp_path, ["127.0.0.1"])

    async def body() -> None:
        by_key = by_signature(lambda name: KEY, SteadyTime())
        async with (
            asyncio.timeout(30),
            aiohttp.ClientSession() as http,
            rigged(identify=by_key, tls=identity.context()) as rig,
        ):
            url, signer = f"https://127.0.0.1:{rig.port}", Signer("n1", KEY, SteadyTime())
            for _ in range(3):
                socket = await Peer(http, url, signer, identity.own_fingerprint).open(ECHO, Place(key="mine"))
                for message in MESSAGES:
                    await socket.send(message)
                    assert await socket.receive() == message
                await socket.close()
            await until(lambda: rig.ended == [NORMAL] * 3)
            lost = await Peer(http, url, signer, identity.own_fingerprint).open(ECHO, Place(key="mine"))
            lost.line.transport.abort()
            await until(lambda: rig.ended[3:] == [LOST])
            with pytest.raises(NodeUnreachable, match="another certificate"):
                await Peer(http, url, signer, "0" * 64).open(ECHO, Place(key="mine"))
            with pytest.raises(NotDelivered):
                await Peer(http, url, signer).open(ECHO, Place(key="mine"))
            by_ca = raw.Address("127.0.0.1", rig.port, context_for(identity.ca_pem))
            assert (await raw.dial(by_ca, "/ws/echo/mine", {})).status == 401

    asyncio.run(body())


def test_many_sockets_come_and_go_and_leave_nothing() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        for _ in range(100):
            socket = await rig.socket()
            await socket.send(b"x")
            assert await socket.receive() == b"x"
            await (socket.close() if _ % 2 else socket.hang_up())
        await until(lambda: len(rig.ended) == 100)
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) < 10

    play(script)


@pytest.mark.parametrize("kinds", ["raw-raw", "ws-raw"])
def test_a_relay_hands_on_both_ways_and_ends_as_it_was_ended(kinds: str) -> None:
    async def body() -> None:
        async with (
            asyncio.timeout(30),
            aiohttp.ClientSession(headers={"X-Role": "node"}) as http,
            rigged() as far,
        ):

            async def join(rig: Rig, socket: Socket) -> None:
                onward = await far.socket()
                await socket.open()
                await relay(socket, onward)

            async with rigged(join) as near:
                if kinds == "raw-raw":
                    socket = await near.socket()
                    for message in MESSAGES:
                        await socket.send(message)
                        assert await socket.receive() == message
                    await socket.close(4000, "bye")
                else:
                    async with http.ws_connect(f"http://127.0.0.1:{near.port}/ws/echo/mine", compress=0) as ws:
                        await ws.send_str("é")
                        await ws.send_bytes(b"\xff")
                        assert [(await ws.receive()).data for _ in range(2)] == ["é", b"\xff"]
                        await ws.close(code=4000, message=b"bye")
                await until(lambda: far.ended == [4000])
                lost = await near.socket()
                await until(lambda: len(far.asked) == 2)
                await lost.hang_up()
                await until(lambda: far.ended == [4000, LOST])

    asyncio.run(body())


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_in_place_of_records_ends_the_socket_and_nothing_else(garbage: bytes) -> None:
    async def body() -> None:
        ours, other = socketpair()
        other.sendall(garbage)
        other.close()
        socket = RawSocket(await connected(ours))
        while (message := await socket.receive()) is not None:
            assert isinstance(message, (bytes, str))
        await socket.hang_up()

    asyncio.run(body())


def test_a_record_of_unreasonable_size_is_refused_before_it_is_read() -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket()
        await socket.line.write(struct.pack(">BI", 0, 1 << 31))
        assert await socket.receive() is None and socket.close_code == 1009

    play(script)
