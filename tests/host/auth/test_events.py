"""The feed of changes: who hears of what, from where on, what a slow or a late reader is told, and what it all costs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.store import assignments, changes
from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, NotLoggedIn, TooMany
from kohakuriver.model.events import Kind, Step
from kohakuriver.wire import raw
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import error_in
from tests.host.auth.house import House, Person, in_house
from tests.host.auth.test_cut import CUTS


async def dial(house: House, who: Person | None, query: str = "") -> raw.Answered:
    host, port = house.host.url.removeprefix("http://").split(":")
    return await raw.dial(raw.Address(host, int(port)), f"/ws/events{query}", who.headers if who else {})


class Reader:
    """Somebody who follows; `first` is what he was told at once."""

    def __init__(self, socket: RawSocket) -> None:
        self.socket = socket
        self.first: dict[str, Any] = {}

    async def next(self) -> dict[str, Any]:
        message = await self.socket.receive()
        assert isinstance(message, str), error_in(self.socket.close_code, self.socket.close_reason)
        found: dict[str, Any] = json.loads(message)
        return found

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """What comes, up to what is waited for."""
        found = [await self.next()]
        while not true(found[-1]):
            found.append(await self.next())
        return found


Reading = Callable[..., Awaitable[Reader]]


async def node_says(house: House, state: str, times: int = 1) -> None:
    """That many changes which everybody may know of."""

    def tell(tx: Any) -> None:
        for number in range(times):
            changes.tell(tx, Kind.NODE, "alpha", Step(at="2026-01-01T00:00:00Z", state=state, detail=str(number)))

    await house.host.db.write(tell)


def with_readers(folder: Path, work: Callable[[House, Reading], Awaitable[None]]) -> None:
    """Run a test in a house of its own, with a way to become a reader there."""

    async def whole(house: House) -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:

            async def reading(who: Person, query: str = "") -> Reader:
                answered = await dial(house, who, query)
                assert answered.socket is not None, answered
                stack.push_async_callback(answered.socket.hang_up)
                reader = Reader(answered.socket)
                reader.first = await reader.next()
                return reader

            await work(house, reading)

    in_house(folder, whole)


def is_node(event: dict[str, Any]) -> bool:
    return event.get("object") == "node:alpha"


def test_everybody_hears_of_what_he_sees_and_of_nothing_else(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada, eve = await house.person("ada", Role.USER), await house.person("eve", Role.USER)
        boss, looker = await house.person("boss", Role.OPERATOR), await house.person("looker", Role.VIEWER)
        readers = {who.name: await reading(who) for who in (ada, eve, boss, looker)}
        task, vps = await house.task(ada), await house.vps(boss)
        await node_says(house, "online")
        heard = {}
        for name, reader in readers.items():
            found = await reader.until(is_node)
            heard[name] = {event["object"] for event in found}
            numbers = [event["seq"] for event in found]
            assert numbers == sorted(set(numbers))
        assert heard["ada"] == {f"task:{task}", "node:alpha"}
        assert heard["eve"] == {"node:alpha"}
        assert heard["boss"] == heard["looker"] == {f"task:{task}", f"vps:{vps}", "node:alpha"}

    with_readers(tmp_path, work)


def test_an_entry_is_the_one_of_the_history(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        reader = await reading(ada)
        task = await house.task(ada)
        (event,) = await reader.until(lambda event: event["type"] == "change")
        assert [event["entry"]] == await house.get(f"/api/tasks/{task}/history", ada)
        assert (event["owner"], event["entry"]["status"]) == ("ada", "pending_approval")

    with_readers(tmp_path, work)


def test_an_assigned_vps_is_heard_of_as_long_as_it_is_assigned(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        boss, eve = await house.person("boss", Role.OPERATOR), await house.person("eve", Role.USER)
        vps = await house.vps(boss)
        await house.host.db.write(lambda tx: assignments.add(tx, Snowflake(int(vps)), "eve", "boss", 0.0))
        reader = await reading(eve, f"?object=vps:{vps}&since=0")
        assert (await reader.next())["object"] == f"vps:{vps}"
        await house.host.db.write(lambda tx: assignments.remove(tx, Snowflake(int(vps)), eve.user_id))
        late = await reading(eve, "?since=0")
        await node_says(house, "online")
        assert [event["object"] for event in await late.until(is_node)] == ["node:alpha"]

    with_readers(tmp_path, work)


def test_who_comes_back_goes_on_where_he_was_and_misses_nothing(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        reader = await reading(ada)
        await node_says(house, "online", 3)
        seen = [(await reader.next())["seq"] for _ in range(2)]
        await reader.socket.hang_up()
        await node_says(house, "offline", 1200)
        again = await reading(ada, f"?since={seen[-1]}")
        assert again.first == {"type": "seen", "seq": seen[-1], "object": "", "owner": "", "entry": {}}
        numbers = [(await again.next())["seq"] for _ in range(1201)]
        assert numbers == list(range(seen[-1] + 1, seen[-1] + 1202))

    with_readers(tmp_path, work)


@pytest.mark.parametrize("since", ["1", "999999999"])
def test_who_comes_back_too_late_or_from_elsewhere_is_told_to_look_anew(tmp_path: Path, since: str) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        await node_says(house, "online", 20)
        await house.host.db.write(lambda tx: tx.execute("DELETE FROM changes WHERE seq < 10"))
        reader = await reading(ada, f"?since={since}")
        assert (reader.first["type"], reader.first["seq"]) == ("reload", 20)
        await node_says(house, "offline")
        assert (await reader.next())["seq"] == 21

    with_readers(tmp_path, work)


def test_only_the_newest_changes_are_kept(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        await node_says(house, "online", 2)
        await house.host.db.write(lambda tx: tx.execute("UPDATE changes SET seq = seq + 60000 WHERE seq = 2"))
        await node_says(house, "offline")
        assert await house.host.db.read(changes.span) == (60001, 60003)

    with_readers(tmp_path, work)


def test_who_does_not_read_costs_no_memory_and_is_told_to_look_anew(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        reader = await reading(await house.person("ada", Role.USER))
        (follower,), feed = house.host.feed._followers, house.host.feed
        stands_since = follower.position, feed._newest
        while feed._newest - stands_since[1] < 10:  # until it goes on without him
            await node_says(house, "x" * 500_000, 2)
            await asyncio.sleep(0.06)
            if follower.position != stands_since[0]:
                stands_since = follower.position, feed._newest
        await house.host.db.write(lambda tx: tx.execute("DELETE FROM changes WHERE seq < ?", (feed._newest,)))
        found = await reader.until(lambda event: event["type"] == "reload")
        *read, told = (event["seq"] for event in found)
        assert told == feed._newest and read == list(range(1, len(read) + 1))

    with_readers(tmp_path, work)


def test_a_number_moves_on_past_what_one_may_not_see(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        reader = await reading(ada, "?object=task")
        await node_says(house, "online", 1500)
        assert (await reader.next())["type"] == "seen"

    with_readers(tmp_path, work)


def test_nobody_follows_without_a_login_or_with_a_query_that_makes_no_sense(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        assert (await dial(house, None)).status == 401
        for query, field in (("?since=-1", b"since"), ("?since=x", b"since"), ("?object=user:1", b"object")):
            refused = await dial(house, ada, query)
            assert refused.status == 400 and field in refused.body

    with_readers(tmp_path, work)


def test_who_may_no_longer_be_there_is_cut_off_and_who_speaks_is_refused(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada, admin = await house.person("ada", Role.USER), await house.person("admin", Role.ADMIN)
        talker, reader = await reading(admin), await reading(ada)
        await talker.socket.send("hello")
        assert await talker.socket.receive() is None
        assert isinstance(error_in(talker.socket.close_code, talker.socket.close_reason), BadRequest)
        assert await CUTS["disabled"](house, ada, admin) == 200
        assert await reader.socket.receive() is None
        assert isinstance(error_in(reader.socket.close_code, reader.socket.close_reason), NotLoggedIn)
        while house.host.feed._followers:
            await asyncio.sleep(0.01)

    with_readers(tmp_path, work)


def test_one_person_does_not_take_all_the_places(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada, eve = await house.person("ada", Role.USER), await house.person("eve", Role.USER)
        readers = [await reading(ada) for _ in range(50)]
        assert (await dial(house, ada)).status == TooMany.status
        readers.append(await reading(eve))

    with_readers(tmp_path, work)


def test_commits_that_are_no_news_wake_nobody_and_without_followers_nothing_is_read(tmp_path: Path) -> None:
    async def work(house: House, reading: Reading) -> None:
        ada = await house.person("ada", Role.USER)
        feed, looks = house.host.feed, [0]
        after = changes.after

        def counted(tx: Any, seq: int) -> Any:
            looks[0] += 1
            return after(tx, seq)

        changes.after = counted
        try:
            for _ in range(20):
                await house.host.db.write(lambda tx: None)
            assert looks == [0]
            readers = [await reading(ada) for _ in range(10)]
            before, commits = looks[0], house.host.db._commits
            for _ in range(3):
                await house.host.db.write(lambda tx: None)
            assert not any(each.wake.is_set() for each in feed._followers)
            await node_says(house, "online")
            for each in readers:
                assert is_node(await each.next())
            assert looks[0] - before <= house.host.db._commits - commits + 2  # one for all of them, however many
        finally:
            changes.after = after

    with_readers(tmp_path, work)
