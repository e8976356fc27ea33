"""Who may no longer do what he is doing is cut off within a second, and only he."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from kohakuriver.host.endpoints.access import edge_of
from kohakuriver.host.state import Host
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import TooMany
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.runner_api import Nothing
from kohakuriver.wire.listen import listening
from kohakuriver.wire.serve import Streamed, build_app, on_stream
from kohakuriver.wire.sign import SteadyTime, Verifier
from tests.host.auth.house import House, Person, in_house, open_house, settings_in
from tests.manual_clock import ManualClock

ENDLESS = Route("endless", "GET", "/endless", Nothing, ByteStream, Role.OPERATOR, "Drips until somebody leaves.")


async def drip(host: Host, caller: Caller, asked: Nothing) -> Streamed:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun\n"
        await asyncio.Event().wait()  # silent ever after, as a terminal in which nothing happens

    return Streamed(chunks())


class Listener:
    """Somebody who reads the endless stream; `ended` is when it was cut."""

    def __init__(self, house: House, url: str, who: Person) -> None:
        self.begun, self.ended = asyncio.Event(), 0.0
        self._task = asyncio.create_task(self._read(house, url, who))

    async def _read(self, house: House, url: str, who: Person) -> None:
        try:
            async with house.http.get(f"{url}/endless", headers=who.headers) as answer:
                assert answer.status == 200
                async for _ in answer.content.iter_any():
                    self.begun.set()
        except aiohttp.ClientError:
            self.ended = time.monotonic()

    async def seconds_until_cut(self, since: float) -> float:
        await asyncio.wait_for(asyncio.shield(self._task), 5)
        assert self.ended, "the stream ended as if all had been said"
        return self.ended - since

    @property
    def is_on(self) -> bool:
        return not self._task.done()

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


Change = Callable[[House, Person, Person], Awaitable[int]]


def patch(**change: object) -> Change:
    async def work(house: House, who: Person, boss: Person) -> int:
        return (await house.ask("PATCH", f"/api/auth/users/{who.user_id}", boss, change)).status

    return work


async def delete_him(house: House, who: Person, boss: Person) -> int:
    return (await house.ask("DELETE", f"/api/auth/users/{who.user_id}", boss)).status


async def revoke(house: House, who: Person, boss: Person) -> int:
    return (await house.ask("DELETE", f"/api/auth/tokens/{who.token_id}", boss)).status


async def revoke_all(house: House, who: Person, boss: Person) -> int:
    return (await house.ask("DELETE", f"/api/auth/tokens?user={who.name}", boss)).status


async def log_out(house: House, who: Person, boss: Person) -> int:
    return (await house.ask("POST", "/api/auth/logout", who)).status


CUTS = {
    "disabled": patch(disabled=True),
    "made user": patch(role="user"),
    "made viewer": patch(role="viewer"),
    "deleted": delete_him,
    "token revoked": revoke,
    "all tokens revoked": revoke_all,
    "logged out": log_out,
}


@pytest.mark.parametrize("how", CUTS)
def test_a_live_stream_is_cut_within_a_second(tmp_path: Path, how: str) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        bob, eve = await house.person("bob", Role.OPERATOR), await house.person("eve", Role.OPERATOR)
        app = build_app(
            [ENDLESS], [on_stream(ENDLESS, drip)], edge_of(house.host, Verifier(lambda _: None, SteadyTime()))
        )
        async with listening(app, "127.0.0.1", 0) as port:
            url = f"http://127.0.0.1:{port}"
            victim, other = Listener(house, url, bob), Listener(house, url, eve)
            await asyncio.gather(victim.begun.wait(), other.begun.wait())
            began = time.monotonic()
            assert await CUTS[how](house, bob, boss) == 200
            assert await victim.seconds_until_cut(began) < 1
            await asyncio.sleep(0.05)
            assert other.is_on
            await other.leave()
        assert not house.host.auth.accounts._watched

    in_house(tmp_path, work)


@pytest.mark.parametrize(
    "harmless", [patch(role="admin"), patch(groups=[]), patch(disabled=False)], ids=["raised", "groups", "let in"]
)
def test_what_takes_nothing_away_cuts_nothing(tmp_path: Path, harmless: Change) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.OPERATOR)
        app = build_app(
            [ENDLESS], [on_stream(ENDLESS, drip)], edge_of(house.host, Verifier(lambda _: None, SteadyTime()))
        )
        async with listening(app, "127.0.0.1", 0) as port:
            listener = Listener(house, f"http://127.0.0.1:{port}", bob)
            await listener.begun.wait()
            assert await harmless(house, bob, boss) == 200
            await asyncio.sleep(0.2)
            assert listener.is_on
            await listener.leave()

    in_house(tmp_path, work)


def test_who_waits_for_output_to_begin_is_cut_too(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
        task_id = await house.task(bob)
        following = asyncio.create_task(house.ask("GET", f"/api/tasks/{task_id}/stdout?follow=true", bob))
        await asyncio.sleep(0.3)
        assert not following.done()
        began = time.monotonic()
        await revoke(house, bob, boss)
        with suppress(aiohttp.ClientError):
            assert (await following).status == 401  # the library asks once more by itself
        assert time.monotonic() - began < 1

    in_house(tmp_path, work)


def test_a_session_that_runs_out_ends_what_lives_by_it(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            bob = await house.in_browser(await house.person("bob", Role.USER), seconds=60)
            login = house.host.auth.accounts.recognize(bob.headers["Cookie"].partition("=")[2], SessionRow, "")
            assert login is not None
            cut: list[bool] = []
            with house.host.auth.accounts.watch(login.caller, lambda: cut.append(True)):
                await house.host.auth.accounts.keep_up()
                assert not cut
                clock.step_wall(60)
                await house.host.auth.accounts.keep_up()
                assert cut == [True]

    asyncio.run(run())


def test_whoever_is_gone_before_the_watch_begins_is_cut_at_once(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
        login = house.host.auth.accounts.recognize(bob.headers["Authorization"][7:], TokenRow, "")
        assert login is not None
        await revoke(house, bob, boss)
        cut: list[bool] = []
        with house.host.auth.accounts.watch(login.caller, lambda: cut.append(True)):
            assert cut == [True]

    in_house(tmp_path, work)


def test_a_ticket_opens_one_socket_once(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            bob, tickets = await house.person("bob", Role.USER), house.host.auth.tickets
            path = "/ws/task/1/terminal"

            async def ticket() -> str:
                said = await house.ask("POST", "/api/auth/tickets", bob, {"path": path})
                assert said.status == 200 and said.body["expires_in_seconds"] == 30
                return str(said.body["ticket"])

            good = await ticket()
            caller = tickets.redeem(good, path)
            assert caller is not None and (caller.name, caller.role) == ("bob", Role.USER)
            assert tickets.redeem(good, path) is None  # once
            assert tickets.redeem(await ticket(), "/ws/task/2/terminal") is None  # only there
            late = await ticket()
            clock._monotonic += 30
            assert tickets.redeem(late, path) is None  # only soon
            lost = await ticket()
            boss = await house.person("ann", Role.ADMIN)
            assert await revoke(house, bob, boss) == 200
            assert tickets.redeem(lost, path) is None  # and only for who may still come in
            for nonsense in ("", "krw_1_x", "x" * 5000, "\udcff"):
                assert tickets.redeem(nonsense, path) is None

    asyncio.run(run())


def test_there_are_only_so_many_open_tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        clock = ManualClock()
        monkeypatch.setattr("kohakuriver.host.auth.tickets.MOST", 10)
        async with open_house(settings_in(tmp_path), clock) as house:
            tickets, caller = house.host.auth.tickets, Caller("bob", Role.USER, Snowflake(1))
            for _ in range(10):
                tickets.give(caller, "/")
            with pytest.raises(TooMany):
                tickets.give(caller, "/")
            clock._monotonic += 31
            tickets.give(caller, "/")

    asyncio.run(run())
