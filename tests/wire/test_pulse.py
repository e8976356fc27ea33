"""Peers that are gone and peers that are only slow: told apart with a buffer full in either direction."""

import asyncio
import hashlib
import itertools
import struct
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.wire import line, pulse
from kohakuriver.wire.line import TCP_INFO_BYTES
from kohakuriver.wire.pulse import is_gone
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.records import Borders
from kohakuriver.wire.sockets import LOST, Socket
from tests.wire.test_channels import Rig, play, until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and nobody is given long."""
    monkeypatch.setattr(pulse, "PULSE_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "FAREWELL_SECONDS", 0.3)
    monkeypatch.setattr(line, "SILENT_MS", 300)


def tcp_info(state: int) -> bytes:
    """Of a connection on which nothing is waited for."""
    return bytes([state]).ljust(TCP_INFO_BYTES, b"\0")


@pytest.mark.parametrize(
    ("state", "left_seconds", "gone"), [(1, 0, False), (7, 0, True), (8, 29, False), (8, 30, True)]
)
def test_who_was_reset_is_gone_and_who_left_a_while_ago(state: int, left_seconds: float, gone: bool) -> None:
    assert is_gone(tcp_info(state), left_seconds) is gone


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(0, 200)))
def test_a_border_of_records_is_known_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    records = [struct.pack(">BI", 0, len(body)) + body for body in bodies]
    borders, whole = set(itertools.accumulate(map(len, records), initial=0)), b"".join(records)
    seen, passed = Borders(), 0
    for cut in sorted({*(cut for cut in cuts if cut < len(whole)), len(whole)}):
        seen.pass_by(memoryview(whole)[passed:cut])
        passed = cut
        assert seen.is_at_one == (cut in borders)


async def never_receive(rig: Rig, socket: Socket) -> None:
    await socket.open()
    await asyncio.Event().wait()


async def fill(send: Callable[[bytes], Awaitable[None]]) -> "asyncio.Task[None]":
    """Send until nobody takes any more."""
    sent = [0]

    async def pour() -> None:
        while True:
            await send(bytes(100_000))
            sent[0] += 1

    pouring, before = asyncio.create_task(pour()), -1
    while before != sent[0]:
        before = sent[0]
        await asyncio.sleep(0.2)
    return pouring


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("kind", ["raw", "ws"])
def test_who_vanishes_behind_much_that_nobody_reads_is_noticed(quick: None, kind: str) -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        if kind == "raw":
            socket = await rig.socket()
            pouring = await fill(socket.send)
            socket.line.transport.abort()
        else:
            ws = await http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine", compress=0)
            pouring = await fill(ws.send_bytes)
            assert ws._response.connection is not None and ws._response.connection.transport is not None
            ws._response.connection.transport.abort()
        await cancelled(pouring)
        await until(lambda: rig.ended == [LOST])

    play(script, never_receive)


@pytest.mark.parametrize("kind", ["raw", "ws"])
def test_who_is_held_up_for_long_is_not_taken_for_gone(quick: None, kind: str) -> None:
    goes_on, taken = asyncio.Event(), hashlib.sha256()

    async def receive_late(rig: Rig, socket: Socket) -> None:
        await socket.open()
        await goes_on.wait()
        while message := await socket.receive():
            assert isinstance(message, bytes)
            taken.update(message)
        await socket.send(b"all")

    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        given = hashlib.sha256()

        async def give(send: Callable[[bytes], Awaitable[None]]) -> None:
            for number in range(200):
                block = bytes([number]) * 100_000
                given.update(block)
                await send(block)
            await send(b"")

        async def wait_and_finish(send: Callable[[bytes], Awaitable[None]]) -> None:
            giving = asyncio.create_task(give(send))
            await asyncio.sleep(1.0)  # more than three times as long as anybody is given
            assert not rig.ended and not giving.done()
            goes_on.set()
            await giving

        if kind == "raw":
            socket = await rig.socket()
            await wait_and_finish(socket.send)
            assert await socket.receive() == b"all"
            await socket.close()
        else:
            async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine", compress=0) as ws:
                await wait_and_finish(ws.send_bytes)
                assert (await ws.receive()).data == b"all"
        assert taken.digest() == given.digest()

    play(script, receive_late)


async def pour_all(rig: Rig, socket: Socket) -> None:
    await socket.open()
    for number in range(200):
        await socket.send(bytes([number]) * 100_000)
    await socket.close()


ALL = b"".join(bytes([number]) * 100_000 for number in range(200))


async def read_late(socket: RawSocket) -> bytes:
    found = bytearray()
    await asyncio.sleep(1.0)
    while isinstance(message := await socket.receive(), bytes):
        found += message
    await socket.hang_up()
    return bytes(found)


@pytest.mark.parametrize("kind", ["raw", "ws"])
def test_who_does_not_read_for_long_is_not_taken_for_gone_and_gets_everything(quick: None, kind: str) -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        if kind == "raw":
            assert await read_late(await rig.socket()) == ALL
            return
        async with http.ws_connect(f"http://127.0.0.1:{rig.port}/ws/echo/mine", compress=0) as ws:
            await asyncio.sleep(1.0)
            assert not rig.ended
            assert b"".join([message.data async for message in ws]) == ALL

    play(script, pour_all)


def test_what_means_nothing_is_overlooked(quick: None) -> None:
    async def script(rig: Rig, http: aiohttp.ClientSession) -> None:
        socket = await rig.socket()
        for _ in range(3):
            await socket.line.write(struct.pack(">BI", 3, 0) * 2)
            await socket.send("x")
            assert await socket.receive() == "x"
        await socket.close()

    play(script)
