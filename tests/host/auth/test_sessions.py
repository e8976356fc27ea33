"""Browser sessions: a cookie that scripts cannot read and other sites cannot use, and that ends when it should."""

import asyncio
import sqlite3
from http.cookies import Morsel, SimpleCookie
from pathlib import Path

import pytest

from kohakuriver.host.auth import credentials
from kohakuriver.model.access import Role
from kohakuriver.model.errors import NotAllowed
from kohakuriver.wire import browser
from kohakuriver.wire.browser import COOKIE, CSRF_HEADER
from tests.host.auth.house import House, Person, Said, in_house, open_house, settings_in
from tests.manual_clock import ManualClock


def cookie_of(said: Said) -> "Morsel[str]":
    return SimpleCookie(said.headers["Set-Cookie"])[COOKIE]


def headers_of(said: Said) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={cookie_of(said).value}", CSRF_HEADER: said.body["csrf_token"]}


async def bob_of(house: House) -> Person:
    bob = await house.person("bob", Role.USER)
    await house.with_password(bob)
    return bob


def test_a_login_in_a_browser_sets_a_cookie_that_only_we_can_use(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await bob_of(house)
        said = await house.log_in("bob")
        cookie = cookie_of(said)
        assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/"
        assert cookie["max-age"] == str(30 * 86400) and not cookie["domain"] and not cookie["secure"]
        assert cookie.value.startswith("krs_") and cookie.value not in str(said.body)
        me = await house.get("/api/auth/me", headers_of(said))
        assert (me["name"], me["by"], me["csrf_token"]) == ("bob", "session", said.body["csrf_token"])

    in_house(tmp_path, work)


def test_under_tls_the_cookie_is_secure_and_bound_to_the_host() -> None:
    from aiohttp import web

    response = web.Response()
    browser.give_session(response, browser.WithSession(None, "krs_1_x", 60), secure=True)
    (cookie,) = response.cookies.values()
    assert cookie.key == f"__Host-{COOKIE}" and cookie["secure"] and cookie["path"] == "/" and not cookie["domain"]


def test_a_session_does_not_outlive_its_end_a_logout_or_a_restart_of_the_host_unduly(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        settings = settings_in(tmp_path, session_expire_hours=1)
        async with open_house(settings, clock) as house:
            await bob_of(house)
            short, left = headers_of(await house.log_in("bob")), headers_of(await house.log_in("bob"))
            said = await house.ask("POST", "/api/auth/logout", left)
            assert said.status == 200 and cookie_of(said)["max-age"] == "0" and cookie_of(said).value == ""
            assert (await house.ask("GET", "/api/auth/me", left)).status == 401
        async with open_house(settings, clock) as house:
            assert (await house.ask("GET", "/api/auth/me", short)).status == 200
            assert (await house.ask("GET", "/api/auth/me", left)).status == 401
            clock.step_wall(3599)
            assert (await house.ask("GET", "/api/auth/me", short)).status == 200
            clock.step_wall(1)
            said = await house.ask("GET", "/api/auth/me", short)
            assert said.status == 401 and "kohakuriver auth login" in said.message
            await house.host.auth.accounts.keep_up()
            assert not house.host.auth.accounts.sessions
            assert await house.host.db.read(lambda tx: tx.execute("SELECT count(*) FROM sessions").fetchone()[0]) == 0

    asyncio.run(run())


def test_logging_in_changes_the_session_that_the_browser_had(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await bob_of(house)
        planted = headers_of(await house.log_in("bob"))
        body = {"username": "bob", "password": "correct horse battery"}
        fresh = headers_of(await house.ask("POST", "/api/auth/login", {"Cookie": planted["Cookie"]}, body))
        assert fresh["Cookie"] != planted["Cookie"]
        assert (await house.ask("GET", "/api/auth/me", planted)).status == 401
        assert (await house.ask("GET", "/api/auth/me", fresh)).status == 200

    in_house(tmp_path, work)


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_a_session_does_not_survive_a_change_of_role(tmp_path: Path, role: str) -> None:
    async def work(house: House) -> None:
        bob, boss = await bob_of(house), await house.person("ann", Role.ADMIN)
        session = await house.in_browser(bob)
        path = f"/api/auth/users/{bob.user_id}"
        assert (await house.ask("PATCH", path, boss, {"role": "user"})).status == 200  # no change
        assert (await house.ask("GET", "/api/auth/me", session)).status == 200
        assert (await house.ask("PATCH", path, boss, {"role": role})).status == 200
        assert (await house.ask("GET", "/api/auth/me", session)).status == 401
        assert (await house.get("/api/auth/me", bob))["role"] == ("user" if role == "operator" else "viewer")
        assert (await house.log_in("bob")).body["role"] == role

    in_house(tmp_path, work)


def test_a_person_sees_and_ends_his_own_sessions_and_an_admin_anybodys(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, eve, boss = await bob_of(house), await house.person("eve", Role.USER), await house.person("a", Role.ADMIN)
        one, two = await house.in_browser(bob), await house.in_browser(bob)
        found = await house.get("/api/auth/sessions", one)
        assert [session["current"] for session in found] == [True, False]
        assert {session["owner"] for session in found} == {"bob"}
        assert (await house.ask("GET", "/api/auth/sessions?user=bob", eve)).status == 404
        other = f"/api/auth/sessions/{found[1]['session_id']}"
        assert (await house.ask("DELETE", other, eve)).status == 404
        assert (await house.ask("DELETE", other, one)).status == 200
        assert (await house.ask("GET", "/api/auth/me", two)).status == 401
        (left,) = await house.get("/api/auth/sessions?user=bob", boss)
        assert (await house.ask("DELETE", f"/api/auth/sessions/{left['session_id']}", boss)).status == 200
        assert (await house.ask("GET", "/api/auth/me", one)).status == 401

    in_house(tmp_path, work)


def test_somebody_has_only_so_many_sessions(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await bob_of(house)
        first = await house.in_browser(bob)
        for _ in range(50):
            await house.in_browser(bob)
        assert len(await house.get("/api/auth/sessions", bob)) == 50
        assert (await house.ask("GET", "/api/auth/me", first)).status == 401

    in_house(tmp_path, work)


def test_only_digests_of_secrets_are_stored(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await bob_of(house), await house.person("ann", Role.ADMIN)
        said = await house.log_in("bob")
        token = (await house.log_in("bob", token_name="t")).body["token"]
        code = await house.invitation(boss)

        def everything(tx: sqlite3.Connection) -> str:
            tables = [row[0] for row in tx.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return str([tuple(row) for table in tables for row in tx.execute(f"SELECT * FROM {table}")])

        text = await house.host.db.read(everything)
        for secret in (cookie_of(said).value, token, code, bob.headers["Authorization"].removeprefix("Bearer ")):
            assert secret.split("_", 2)[2] not in text
        assert repr(credentials.digest_of(token)) in text

    in_house(tmp_path, work)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("river.lab:8000", "river.lab"),
        ("RIVER.lab.", "river.lab"),
        ("[::1]:8000", "::1"),
        ("[::1]", "::1"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert browser.name_in(host) == name


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "[::1]:1", "10.0.0.1", "localhost:8000", "x.localhost", "river.lab:80"]
)
def test_addresses_and_our_own_names_are_no_strangers(host: str) -> None:
    browser.refuse_strange_names(host, lambda name: name in ("localhost", "x.localhost", "river.lab"))


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "river.lab@x"]
)
def test_other_names_are(host: str) -> None:
    with pytest.raises(NotAllowed, match="ALLOWED_HOSTS"):
        browser.refuse_strange_names(host, lambda name: name in ("localhost", "river.lab"))


def test_names_of_the_configuration_are_ours(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.in_browser(await bob_of(house))
        for name, status in {"river.lab": 200, "RIVER.LAB:8000": 200, "head": 200, "other.lab": 403}.items():
            assert (await house.ask("GET", "/api/auth/me", {**bob.headers, "Host": name})).status == status

    in_house(tmp_path, work, allowed_hosts=["river.lab"], host_reachable_address="head")


def test_a_token_works_under_every_name_because_no_browser_sends_it_by_itself(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await bob_of(house)
        assert (await house.ask("GET", "/api/auth/me", {**bob.headers, "Host": "any.example"})).status == 200
        assert (await house.ask("POST", "/api/auth/logout", bob)).status == 200  # and needs no other header

    in_house(tmp_path, work)
