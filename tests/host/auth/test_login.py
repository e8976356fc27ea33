"""Passwords at the door: who knows his gets in, who guesses is slowed down, and others do not notice."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kohakuriver.host.auth.passwords import Passwords
from kohakuriver.model.access import Role
from tests.host.auth.house import PASSWORD, House, Said, in_house, open_house, settings_in
from tests.manual_clock import ManualClock


def test_a_right_password_gives_a_token_that_works(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        await house.with_password(bob)
        said = await house.log_in("bob", token_name="laptop")
        assert said.status == 200 and "Set-Cookie" not in said.headers
        assert said.body["token"].startswith(f"krt_{said.body['token_id']}_") and said.body["csrf_token"] is None
        me = await house.get("/api/auth/me", {"Authorization": f"Bearer {said.body['token']}"})
        assert (me["name"], me["role"], me["by"]) == ("bob", "user", "token")
        (entry,) = await house.trail(action="auth.login", result="ok")
        assert (entry["user"], entry["object"], entry["address"]) == ("bob", "user:bob", "127.0.0.1")

    in_house(tmp_path, work)


def test_nobody_learns_whether_a_name_is_known(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.with_password(await house.person("bob", Role.USER))
        gone = await house.person("gone", Role.USER)
        await house.with_password(gone)
        boss = await house.person("ann", Role.ADMIN)
        await house.ask("PATCH", f"/api/auth/users/{gone.user_id}", boss, {"disabled": True})
        found = [await house.log_in("bob", "wrong"), await house.log_in("nobody"), await house.log_in("gone")]
        found += [await house.log_in("\u00e9"), await house.log_in("ann"), await house.log_in("")]
        assert {said.status for said in found} == {401}
        assert len({str(said.body) for said in found}) == 1

    in_house(tmp_path, work)


def test_an_unknown_name_takes_as_long_as_a_wrong_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passwords.__init__, "__defaults__", (9, 64))

    async def work(house: House) -> None:
        await house.with_password(await house.person("bob", Role.USER))

        async def seconds(name: str) -> float:
            house.host.auth.attempts.by_address._full_at.clear()
            house.host.auth.attempts.by_user._full_at.clear()
            began = time.process_time()  # of all threads, and of nothing else that the machine does
            assert (await house.log_in(name, "wrong")).status == 401
            return time.process_time() - began

        spans = [(await seconds("bob"), await seconds("nobody")) for _ in range(15)]
        known, unknown = (statistics.median(column) for column in zip(*spans, strict=True))
        assert 0.7 < known / unknown < 1.4

    in_house(tmp_path, work)


def test_who_guesses_is_told_to_wait(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            await house.with_password(await house.person("bob", Role.USER))
            found = [await house.log_in("bob", f"guess {n}") for n in range(15)]
            assert [said.status for said in found] == [401] * 10 + [429] * 5
            wait = int(found[-1].headers["Retry-After"])
            assert 0 < wait <= 30 and found[-1].code == "too_many" and f"{wait} s" in found[-1].message
            assert (await house.log_in("bob")).status == 429  # the right one, too: it could have been guessed
            clock._monotonic += wait
            assert (await house.log_in("bob")).status == 200

    asyncio.run(run())


def test_guessing_at_many_names_from_one_address_ends_too(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        found = [await house.log_in(f"name{n}", "x") for n in range(30)]
        assert [said.status for said in found] == [401] * 20 + [429] * 10

    in_house(tmp_path, work)


def test_who_was_here_before_is_not_locked_out_by_those_who_guess_elsewhere(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.with_password(await house.person("bob", Role.USER))
        assert (await house.log_in("bob")).status == 200
        attempts = house.host.auth.attempts
        for number in range(10):  # from everywhere else
            attempts.begin(f"10.0.0.{number}", "bob")
        assert (await house.log_in("bob")).status == 200
        assert [(await house.log_in("bob", "x")).status for _ in range(11)].count(429) == 1

    in_house(tmp_path, work)


def test_logging_in_again_and_again_costs_nothing(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.with_password(await house.person("bob", Role.USER))
        assert {(await house.log_in("bob")).status for _ in range(60)} == {200}

    in_house(tmp_path, work)


def test_failures_are_in_the_trail_without_what_was_typed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.person("bob", Role.USER)
        await house.log_in("bob", "my old password")
        await house.log_in("my password in the wrong field", "x")
        entries = await house.trail(action="auth.login", result="failed")
        assert [(entry["object"], entry["detail"]) for entry in entries] == [
            ("user:bob", "wrong password"),
            ("", "unknown name"),
        ]
        assert "field" not in str(entries) and "old" not in str(entries)

    in_house(tmp_path, work)


@pytest.mark.slow
def test_ten_thousand_wrong_logins_in_a_burst_leave_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passwords.__init__, "__defaults__", (10, 64))  # one takes longer than the loop may stand still

    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        task_id = await house.task(bob)
        spans: list[float] = []
        refused: dict[int, int] = {}
        begun = iter(range(10_000))

        async def guess() -> None:
            async with speaking_with(house) as ask:
                for number in begun:
                    name = "bob" if number % 2 else f"name{number}"
                    status = await ask("/api/auth/login", {"username": name, "password": f"guess {number}"})
                    refused[status] = refused.get(status, 0) + 1

        async def work_on(stop: asyncio.Event) -> None:
            while not stop.is_set():
                began = time.thread_time()  # of the loop, and of nothing else that the machine does
                await house.get(f"/api/tasks/{task_id}", bob)
                spans.append(time.thread_time() - began)
                await asyncio.sleep(0.01)

        stop = asyncio.Event()
        worker = asyncio.create_task(work_on(stop))
        await asyncio.gather(*(guess() for _ in range(50)))
        stop.set()
        await worker
        assert sum(refused.values()) == 10_000 and refused[429] > 9_900
        assert statistics.median(spans) < 0.1 and max(spans) < 0.5
        assert len(await house.trail(action="auth.login", result="failed")) < 50
        rows = await house.host.db.read(lambda tx: tx.execute("SELECT count(*) FROM audit").fetchone()[0])
        assert rows < 100  # nobody fills the disk by failing

    in_house(tmp_path, work)


@asynccontextmanager
async def speaking_with(house: House) -> AsyncIterator[Callable[[str, object], Awaitable[int]]]:
    """Posts on one connection, which costs us less than a whole client would; gives the status."""
    at = urlsplit(house.host.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)

    async def ask(path: str, body: object) -> int:
        text = json.dumps(body)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(text)}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {at.netloc}\r\n{kind}\r\n\r\n{text}".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(head.partition("Content-Length: ")[2].partition("\r\n")[0]))
        return int(head.split()[1])

    try:
        yield ask
    finally:
        writer.close()
        await writer.wait_closed()


def test_a_password_of_a_thousand_characters_is_taken_whole(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        long = "\u4f60" * 1000
        said = await house.register("bob", await house.invitation(boss), password=long)
        assert said.status == 200
        assert (await house.log_in("bob", long)).status == 200
        assert (await house.log_in("bob", long[:-1])).status == 401
        assert (await house.log_in("bob", long + "x" * 100)).status == 400

    in_house(tmp_path, work)


@pytest.mark.parametrize("password", ["", "short", "1234567", "a\0bcdefgh"])
def test_a_password_that_is_too_short_is_refused_and_not_repeated(tmp_path: Path, password: str) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        said = await house.register("bob", await house.invitation(boss), password=password)
        assert said.status == 400 and said.message.startswith("password")
        assert not password or password not in said.message

    in_house(tmp_path, work)


def test_changing_the_password_ends_the_other_sessions_and_keeps_this_one(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        await house.with_password(bob)
        here, there = await house.in_browser(bob), await house.in_browser(bob)
        body = {"old_password": PASSWORD, "new_password": "another one entirely"}
        wrong = await house.ask("POST", "/api/auth/password", here, body | {"old_password": "no"})
        assert wrong.status == 403 and wrong.message.startswith("old_password")
        assert (await house.ask("POST", "/api/auth/password", here, body)).status == 200
        assert (await house.ask("GET", "/api/auth/me", here)).status == 200
        assert (await house.ask("GET", "/api/auth/me", there)).status == 401
        assert (await house.log_in("bob")).status == 401
        assert (await house.log_in("bob", "another one entirely")).status == 200

    in_house(tmp_path, work)


def test_a_login_that_was_overtaken_by_a_change_of_the_password_fails(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        await house.with_password(bob)
        whole, changed = house.host.auth.passwords.verify, asyncio.Event()

        async def slow(password: str, stored: str) -> bool:
            right = await whole(password, stored)
            await changed.wait()
            return right

        house.host.auth.passwords.verify = slow  # type: ignore[method-assign]
        login = asyncio.create_task(house.log_in("bob", token_name="t"))
        await asyncio.sleep(0.2)
        boss = await house.person("ann", Role.ADMIN)
        said = await house.ask("PATCH", f"/api/auth/users/{bob.user_id}", boss, {"password": "another one entirely"})
        assert said.status == 200
        changed.set()
        late: Said = await login
        assert late.status == 401

    in_house(tmp_path, work)
