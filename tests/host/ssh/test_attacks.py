"""What strangers can do at the SSH port: nothing that lasts, and nothing that others notice."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from kohakuriver.host.services.ssh import algorithms
from kohakuriver.model.access import Role
from tests.host.ssh.doors import SECONDS, Door, at_the_door

VERSION = b"SSH-2.0-OpenSSH_9.2\r\n"


async def until_closed(port: int, said: bytes) -> bytes:
    """What the port says to this until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(said)
            while data := await reader.read(65536):
                heard += data
    except OSError:
        pass
    finally:
        writer.close()
    return heard


async def gone(door: Door) -> None:
    proxy = await door.keeper.ready()
    async with asyncio.timeout(SECONDS):
        while proxy.connections or proxy.gate.strangers.taken or proxy.gate.connections.taken:
            await asyncio.sleep(0.02)


def test_garbage_ends_its_own_connection_only(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        dice = random.Random(7)
        for said in (
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(5000),
            VERSION + os.urandom(5000),
            VERSION + b"\xff\xff\xff\xff" + bytes(40_000),
            VERSION + b"\0\0\0\x0c\x0a\x14" + bytes(10) + dice.randbytes(2000),
        ):
            heard = await until_closed(door.keeper.port, said)
            assert len(heard) < 10_000
        await gone(door)
        assert (await door.ssh("bob", task, "echo hi")).out == b"hi\n"

    at_the_door(tmp_path, work)


def test_whoever_says_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "LOGIN_SECONDS", 0.5)

    async def work(door: Door) -> None:
        for said in (b"", VERSION):
            assert (await until_closed(door.keeper.port, said)).startswith(b"SSH-2.0-KohakuRiver")
        await gone(door)

    at_the_door(tmp_path, work)


def test_one_address_has_only_so_many_connections_that_do_not_log_in(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        held = [await asyncio.open_connection("127.0.0.1", door.keeper.port) for _ in range(15)]
        for reader, _ in held:
            assert (await reader.readline()).startswith(b"SSH-2.0-")
        assert await until_closed(door.keeper.port, b"") == b""
        for _, writer in held:
            writer.close()
        await gone(door)

    at_the_door(tmp_path, work)


def test_a_person_has_only_so_many_channels(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        proxy = await door.keeper.ready()
        held = [proxy.gate.channels.place("bob") for _ in range(200)]
        for place in held:
            place.__enter__()
        done = await door.ssh("bob", task, "true")
        assert done.code == 255 and "too many SSH channels" in done.err
        for place in held:
            place.__exit__(None, None, None)
        assert (await door.ssh("bob", task, "true")).code == 0

    at_the_door(tmp_path, work)
