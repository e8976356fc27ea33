"""Sockets into workloads, by everybody who might try: browsers with tickets, pages of others, and who is cut off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kohakuriver.model import codec
from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotFound, NotLoggedIn
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.model.terminal import BYTES, Kind, frame, split
from kohakuriver.model.tunnel import STREAM
from kohakuriver.runner.app import running_runner
from kohakuriver.runner.state import Runner
from kohakuriver.system.clock import SystemClock
from kohakuriver.wire import raw
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import error_in
from tests.fake_engine import FakeEngine, FakeNode
from tests.host.auth.house import House, Person, open_house, settings_in
from tests.host.auth.test_cut import CUTS
from tests.runner.stage import BigMachine


@dataclass(frozen=True, slots=True)
class Home:
    """A house with a runner, and a task of a user's that runs there."""

    house: House
    runner: Runner
    boss: Person
    owner: Person
    task_id: str

    async def dial(self, path: str, who: Person | None, protocol: str = "", **headers: str) -> raw.Answered:
        host, port = self.house.host.url.removeprefix("http://").split(":")
        proof = who.headers if who else {}
        return await raw.dial(raw.Address(host, int(port)), path, {**proof, **headers}, protocol)

    async def terminal(self, who: Person) -> RawSocket:
        """A program in the task that only waits."""
        answered = await self.dial(f"/ws/task/{self.task_id}/terminal", who, BYTES)
        assert answered.socket is not None, answered
        start = codec.encoder(StartTerminal)(StartTerminal(argv=["sleep", "1000"], tty=False))
        await answered.socket.send(frame(Kind.START, codec.dumps(start).encode()))
        message = await answered.socket.receive()
        assert message is not None and split(message)[0] is Kind.OPENED
        return answered.socket


@asynccontextmanager
async def home(folder: Path) -> AsyncIterator[Home]:
    node = FakeNode()
    async with open_house(settings_in(folder)) as house:
        settings = RunnerSettings(
            host_address="127.0.0.1",
            host_port=int(house.host.url.rpartition(":")[2]),
            runner_hostname="alpha",
            runner_port=0,
            state_dir=str(folder / "runner"),
            cluster_secret_file=str(folder / "cluster_secret"),
        )
        engine = FakeEngine(node, house.host.cluster_id, "alpha")
        async with running_runner(settings, engine, SystemClock(), BigMachine()) as runner:
            boss, owner = await house.person("boss", Role.OPERATOR), await house.person("owner", Role.USER)
            task_id = await house.task(owner, command="sleep", arguments=["1000000"])
            assert (await house.ask("POST", f"/api/tasks/{task_id}/approve", boss)).status == 200
            async with asyncio.timeout(30):
                while (await house.get(f"/api/tasks/{task_id}", owner))["status"] != "running":
                    await asyncio.sleep(0.02)
            yield Home(house, runner, boss, owner, task_id)
        node.drop_all()


def at_home(folder: Path, work: Callable[[Home], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), home(folder) as place:
            await work(place)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["disabled", "made viewer", "deleted", "token revoked"])
def test_terminals_and_forwards_of_who_may_no_longer_be_there_end_within_a_second(tmp_path: Path, how: str) -> None:
    async def work(place: Home) -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        admin = await place.house.person("admin", Role.ADMIN)
        terminal, other = await place.terminal(place.owner), await place.terminal(place.boss)
        forward = (await place.dial(f"/ws/forward/{place.task_id}/{port}", place.owner, STREAM)).socket
        assert forward is not None
        began = time.monotonic()
        assert await CUTS[how](place.house, place.owner, admin) == 200
        for socket in (terminal, forward):
            while await socket.receive() is not None:
                pass
            assert isinstance(error_in(socket.close_code, socket.close_reason), NotLoggedIn)
        assert time.monotonic() - began < 1
        while len(place.runner.terminals.sessions.by_id) > 1:  # his process ends too, and nobody else's
            await asyncio.sleep(0.01)
        assert [session.user for session in place.runner.terminals.sessions.by_id.values()] == ["boss"]
        await other.close()
        server.close()

    at_home(tmp_path, work)


def test_who_loses_a_workload_is_cut_off_and_the_others_are_not(tmp_path: Path) -> None:
    async def work(place: Home) -> None:
        his, other = await place.terminal(place.owner), await place.terminal(place.boss)
        change = "UPDATE tasks SET owner = 'somebody' WHERE task_id = ?"
        await place.house.host.db.write(lambda tx: tx.execute(change, (int(place.task_id),)))
        await place.house.host.auth.uses.recheck(Snowflake(int(place.task_id)))
        assert await his.receive() is None and his.close_code == 4401
        await other.send(frame(Kind.RECEIVED, bytes(8)))
        await asyncio.sleep(0.1)
        assert len(place.runner.terminals.sessions.by_id) == 1
        await other.close()

    at_home(tmp_path, work)


def test_strangers_get_the_same_404_as_for_what_is_not_there(tmp_path: Path) -> None:
    async def work(place: Home) -> None:
        stranger = await place.house.person("stranger", Role.USER)
        said = []
        for task_id in (place.task_id, "404"):
            for path in (f"/ws/task/{task_id}/terminal", f"/ws/forward/{task_id}/80"):
                answered = await place.dial(path, stranger, BYTES)
                said.append((answered.status, answered.body.replace(task_id.encode(), b"ID")))
        assert {status for status, _ in said} == {404} and len(set(said)) == 1
        missing = await place.dial("/ws/task/404/terminal", place.boss, BYTES)
        assert missing.status == NotFound.status

    at_home(tmp_path, work)


def test_a_browser_opens_a_terminal_with_a_ticket_and_not_with_its_cookie(tmp_path: Path) -> None:
    async def work(place: Home) -> None:
        browser, path = await place.house.in_browser(place.owner), f"/ws/task/{place.task_id}/terminal"
        url = place.house.host.url + path

        async def ticket(**more: str) -> str:
            said = await place.house.ask("POST", "/api/auth/tickets", browser, {"path": path, **more})
            assert said.status == 200
            return str(said.body["ticket"])

        async def refused(target: str, **headers: str) -> int:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await place.house.http.ws_connect(target, headers=headers)
            return caught.value.status

        assert await refused(url, Cookie=browser.headers["Cookie"]) == 403
        assert await refused(url) == 401
        assert await refused(f"{url}?ticket=krw_1_x") == 401
        assert await refused(f"{url}?ticket={await ticket()}", Origin="http://evil.example") == 403
        assert await refused(f"{url}?ticket={await ticket()}", Host="evil.example:8000") == 403
        good = await ticket()
        origin = place.house.host.url
        async with place.house.http.ws_connect(f"{url}?ticket={good}&shell=sh", headers={"Origin": origin}) as ws:
            assert json.loads((await ws.receive()).data)["type"] == "session"
            await ws.send_str(json.dumps({"type": "input", "data": "echo he''llo\n"}))
            text = ""
            while "hello" not in text:
                text += json.loads((await ws.receive()).data).get("data", "")
        assert await refused(f"{url}?ticket={good}") == 401

    at_home(tmp_path, work)


def test_the_trail_tells_who_was_inside(tmp_path: Path) -> None:
    async def work(place: Home) -> None:
        socket = await place.terminal(place.owner)
        await socket.close()
        for _ in range(3):  # again and again is told once
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 4795)
            answered = await place.dial(f"/ws/forward/{place.task_id}/4795", place.owner, STREAM)
            assert answered.socket is not None
            await answered.socket.close()
            server.close()
            await server.wait_closed()
        entries: list[Any] = await place.house.trail(user="owner", object=f"task:{place.task_id}")
        told = [(entry["action"], entry["detail"]) for entry in entries if ".open" in entry["action"]]
        assert told == [("terminal.open", ""), ("forward.open", "tcp 4795")]

    at_home(tmp_path, work)
