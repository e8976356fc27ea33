"""`kohakuriver events` in a process of its own, at a real host, over a line that breaks."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kohakuriver.client.commands.events import line_of
from kohakuriver.model.access import Role
from kohakuriver.model.codec import JsonObject
from kohakuriver.model.events import Event, Type
from tests.client.conftest import PROGRAM, River
from tests.host.auth.house import House, Person, in_house
from tests.host.auth.test_events import node_says


@asynccontextmanager
async def breakable_line(to_port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A port that leads to another one, and a way to break all its connections."""
    writers: set[asyncio.StreamWriter] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to_port)
        writers.update((writer, far_writer))
        try:
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            far_writer.close()

    def cut() -> None:
        for each in writers:
            each.transport.abort()
        writers.clear()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        cut()
        server.close()


@asynccontextmanager
async def following(port: int, who: Person, *words: str) -> AsyncIterator[Callable[[], Any]]:
    """The command, and how to get its next line."""
    token = who.headers["Authorization"].removeprefix("Bearer ")
    env = {"KOHAKURIVER_HOST": "127.0.0.1", "KOHAKURIVER_PORT": str(port), "KOHAKURIVER_TOKEN": token}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "--json", "events", *words, stdout=asyncio.subprocess.PIPE, env={**os.environ, **env}
    )
    assert process.stdout is not None
    out = process.stdout

    async def line() -> Any:
        return json.loads(await out.readline())

    try:
        yield line
    finally:
        process.kill()
        await out.read()
        await process.wait()


def test_when_the_line_breaks_it_goes_on_and_misses_nothing(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        ada = await house.person("ada", Role.USER)
        async with (
            asyncio.timeout(60),
            breakable_line(int(house.host.url.rpartition(":")[2])) as (port, cut),
            following(port, ada, "--object", "node:alpha", "--since", "0") as line,
        ):
            assert (await line())["type"] == "seen"
            await node_says(house, "online", 2)
            numbers = [(await line())["seq"] for _ in range(2)]
            cut()
            await node_says(house, "offline", 3)
            while len(numbers) < 5:
                told = await line()
                numbers += [told["seq"]] if told["type"] == "change" else []
            assert numbers == [1, 2, 3, 4, 5]

    in_house(tmp_path, work)


def test_a_line_tells_what_became_of_what() -> None:
    entry = JsonObject(
        {"at": "2026-01-01T00:00:00.5Z", "status": "running", "node": "alpha", "by": "ada", "detail": "a\x1b[2J"}
    )
    told = line_of(Event(type=Type.CHANGE, seq=7, object="task:12", owner="ada", entry=entry))
    assert told.split() == ["7", "2026-01-01T00:00:00", "task:12", "running", "on", "alpha", "by", "ada", "a\\x1b[2J"]


def test_a_kind_that_there_is_not_is_refused(river: River) -> None:
    told = river("events", "--object", "user:1")
    assert told.code != 0 and "object" in told.err
