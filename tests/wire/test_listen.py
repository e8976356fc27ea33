"""A program that moves to another address goes on with whoever is inside, and is found at the new one only."""

import asyncio
import errno
import socket

import pytest
from aiohttp import web

from kohakuriver.wire.listen import Door, open_door
from tests.ports import free_port

pytestmark = pytest.mark.anyio
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def hello() -> web.Application:
    async def greet(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", greet)
    return app


async def enter(door: Door, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, door.port)


async def greeted(way: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether a request is answered on a connection that stays open."""
    way[1].write(REQUEST)
    head = await way[0].readuntil(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200") and await way[0].readexactly(5) == b"hello"


async def leave(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    for _, writer in ways:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("before", ["127.0.0.1", "0.0.0.0"])
async def test_who_is_inside_stays_and_who_comes_later_finds_it_elsewhere(before: str) -> None:
    async with open_door(hello(), before, free_port()) as door:
        early = await enter(door, "127.0.0.1")
        assert await greeted(early)
        port = door.port
        await door.move("127.0.0.2")
        assert (door.address, door.port) == ("127.0.0.2", port) and await greeted(early)
        with pytest.raises(ConnectionRefusedError):
            await enter(door, "127.0.0.1")
        late = await enter(door, "127.0.0.2")
        assert await greeted(late)
        await leave(early, late)


async def test_where_it_cannot_listen_it_does_not_go() -> None:
    async with open_door(hello(), "127.0.0.1", free_port()) as door:
        for address, why in (("198.51.100.7", errno.EADDRNOTAVAIL), ("127.0.0.2", errno.EADDRINUSE)):
            with socket.socket() as taken:
                taken.bind(("127.0.0.2", door.port))
                with pytest.raises(OSError) as refused:
                    await door.move(address)
            assert refused.value.errno == why and door.address == "127.0.0.1"
            way = await enter(door, "127.0.0.1")
            assert await greeted(way)
            await leave(way)
