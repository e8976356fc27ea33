"""Channels that lead on: every byte, no faster than either side listens, and nothing left of who went away."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest
from asyncssh.encryption import encryption_needs_mac

from kohakuriver.host.services.ssh import channel
from kohakuriver.host.services.ssh.algorithms import CIPHERS
from kohakuriver.model.access import Role
from tests.host.ssh.doors import SECONDS, Door, at_the_door

PART = os.urandom(1 << 16)
PARTS = 320  # 20 MB: more than channel, sockets and pipes hold together
DIGEST = hashlib.sha256(PART * PARTS).hexdigest()


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not so():
            await asyncio.sleep(0.01)


async def say(writer: asyncio.StreamWriter, said: list[int]) -> None:
    for _ in range(PARTS):
        writer.write(PART)
        await writer.drain()
        said.append(len(PART))


async def hear(reader: asyncio.StreamReader) -> str:
    digest = hashlib.sha256()
    while data := await reader.read(1 << 16):
        digest.update(data)
    return digest.hexdigest()


async def part(writer: asyncio.StreamWriter) -> None:
    """Close it, and let it be closed."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def rests(said: list[int]) -> None:
    """Until nothing more is said for a while, although there is more to say."""
    quiet, before = 0, -1
    async with asyncio.timeout(SECONDS):
        while quiet < 20:
            quiet, before = (quiet + 1 if said and len(said) == before else 0), len(said)
            await asyncio.sleep(0.01)


def test_both_directions_wait_for_their_readers_and_arrive_whole(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        inside = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inside.set_result((reader, writer))

        task, command = await asker(door)
        proxy = await door.keeper.ready()
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            door.here.ports[22] = server.sockets[0].getsockname()[1]
            ssh = await asyncio.create_subprocess_exec(
                *command, f"{task}:22", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert ssh.stdin and ssh.stdout
            async with asyncio.timeout(SECONDS):
                reader, writer = await inside
                up: list[int] = []
                down: list[int] = []
                async with asyncio.TaskGroup() as both:
                    saying = [both.create_task(say(ssh.stdin, up)), both.create_task(say(writer, down))]
                    await rests(up)
                    await rests(down)
                    assert len(up) < PARTS and len(down) < PARTS
                    heard = [both.create_task(hear(each)) for each in (reader, ssh.stdout)]
                    await asyncio.gather(*saying)
                    ssh.stdin.write_eof()
                    await heard[0]
                    writer.write_eof()  # after which ssh says no more, either
                assert [each.result() for each in heard] == [DIGEST, DIGEST]
                assert await ssh.wait() == 0
            await part(writer)
            await until(lambda: not proxy.gate.channels.taken and not proxy.connections)

    at_the_door(tmp_path, work)


def test_who_goes_away_while_his_workload_is_reached_leaves_nothing(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        left = asyncio.Event()

        async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionResetError):
                await hear(reader)
            await part(writer)
            left.set()

        task, command = await asker(door)
        proxy = await door.keeper.ready()
        reach, may_go_on = door.here.port, asyncio.Event()

        async def slowly(*where: object) -> object:
            await may_go_on.wait()
            return await reach(*where)  # type: ignore[arg-type]

        door.here.port = slowly  # type: ignore[method-assign,assignment]
        async with await asyncio.start_server(wait_for_the_end, "127.0.0.1", 0) as server:
            door.here.ports[22] = server.sockets[0].getsockname()[1]
            ssh = await asyncio.create_subprocess_exec(*command, f"{task}:22", stdin=asyncio.subprocess.PIPE)
            await until(lambda: proxy.gate.channels.taken == 1)
            assert ssh.stdin is not None
            ssh.kill()
            await ssh.wait()
            await part(ssh.stdin)
            await until(lambda: not proxy.connections)
            may_go_on.set()
            await until(lambda: left.is_set() and not proxy.gate.channels.taken)

    at_the_door(tmp_path, work)


def test_who_asks_for_more_than_he_reads_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(door: Door) -> None:
        async def say_on_and_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await say(writer, [])
            await part(writer)

        task, _ = await asker(door)
        proxy = await door.keeper.ready()
        connecting = asyncssh.connect(
            "127.0.0.1",
            door.keeper.port,
            username="bob",
            known_hosts=([proxy.keys.ed25519.convert_to_public()], [], []),
            client_keys=[str(door.key_of("bob"))],
            config=[],
        )
        async with await asyncio.start_server(say_on_and_on, "127.0.0.1", 0) as server, connecting as client:
            door.here.ports[22] = server.sockets[0].getsockname()[1]
            await client.open_connection(task, 22, window=1 << 30)
            assert client._transport is not None
            client._transport.pause_reading()
            await until(lambda: not proxy.connections)
            client.abort()

    monkeypatch.setattr(channel, "MOST_UNSENT_BYTES", 1 << 20)
    at_the_door(tmp_path, work)


def test_no_cipher_of_ours_needs_the_empty_packets_that_are_left_out() -> None:
    assert not any(encryption_needs_mac(cipher.encode()) for cipher in CIPHERS)


async def asker(door: Door) -> tuple[str, list[str]]:
    """A task of somebody, and how he asks for a connection to what follows."""
    bob = await door.house.person("bob", Role.USER)
    await door.admit(bob)
    task = await door.house.task(bob)
    return task, ["ssh", *door.options("bob"), "-p", str(door.keeper.port), "bob@127.0.0.1", "-W"]
