"""API tokens: shown once, never more than their owner, dead the moment they are revoked."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from tests.host.auth.house import House, Person, in_house, open_house, settings_in
from tests.manual_clock import ManualClock


async def new_token(house: House, who: Person, **fields: object) -> Person:
    said = await house.ask("POST", "/api/auth/tokens", who, {"name": "x", **fields})
    assert said.status == 200, said
    headers = {"Authorization": f"Bearer {said.body['token']}"}
    return Person(who.name, who.user_id, headers, int(said.body["token_id"]))


def test_a_token_is_listed_without_its_secret(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        said = await house.ask("POST", "/api/auth/tokens", bob, {"name": "laptop"})
        found = await house.get("/api/auth/tokens", bob)
        assert [(token["name"], token["role"], token["current"]) for token in found] == [
            ("test", "user", True),
            ("laptop", "user", False),
        ]
        assert said.body["token"] not in str(found) and said.body["token"].split("_", 2)[2] not in str(found)
        made, ends = found[1]["created_at"], found[1]["expires_at"]
        assert made < ends == said.body["expires_at"]

    in_house(tmp_path, work)


def test_a_token_lives_ninety_days_or_as_long_as_was_asked(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            bob = await house.person("bob", Role.USER)
            plain, short = await new_token(house, bob), await new_token(house, bob, expire_days=1)
            clock.step_wall(86400 - 1)
            assert (await house.ask("GET", "/api/auth/me", short)).status == 200
            clock.step_wall(1)
            assert (await house.ask("GET", "/api/auth/me", short)).status == 401
            clock.step_wall(89 * 86400 - 1)
            assert (await house.ask("GET", "/api/auth/me", plain)).status == 200
            clock.step_wall(1)
            assert (await house.ask("GET", "/api/auth/me", plain)).status == 401
            assert [token["name"] for token in await house.get("/api/auth/tokens", bob)] == ["test"]
            await house.host.auth.accounts.keep_up()
            assert list(house.host.auth.accounts.tokens) == [bob.token_id]

    asyncio.run(run())


@pytest.mark.parametrize("asked", ["operator", "admin"])
def test_a_token_is_never_more_than_its_owner(tmp_path: Path, asked: str) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        said = await house.ask("POST", "/api/auth/tokens", bob, {"name": "x", "role": asked})
        assert said.status == 403 and said.message.startswith("role")

    in_house(tmp_path, work)


def test_a_small_token_cannot_make_a_greater_one(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        small = await new_token(house, boss, role="viewer")
        assert (await house.ask("POST", "/api/auth/tokens", small, {"name": "x", "role": "admin"})).status == 403
        again = await new_token(house, small)
        assert (await house.get("/api/auth/me", again))["role"] == "viewer"

    in_house(tmp_path, work)


def test_a_token_shrinks_with_its_owner(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, second = await house.person("ann", Role.ADMIN), await house.person("bob", Role.ADMIN)
        assert (await house.ask("PATCH", f"/api/auth/users/{boss.user_id}", second, {"role": "user"})).status == 200
        assert (await house.get("/api/auth/me", boss))["role"] == "user"
        assert (await house.ask("GET", "/api/auth/users", boss)).status == 403

    in_house(tmp_path, work)


def test_a_viewers_token_of_a_user_shows_only_what_is_his(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        mine, hers = await house.task(bob), await house.task(eve)
        looker = await new_token(house, bob, role="viewer")
        assert [task["task_id"] for task in await house.get("/api/tasks", looker)] == [mine]
        assert (await house.ask("GET", f"/api/tasks/{hers}", looker)).status == 404
        assert (await house.ask("GET", f"/api/tasks/{mine}", looker)).status == 200
        assert (await house.ask("POST", f"/api/tasks/{mine}/kill", looker)).status == 403

    in_house(tmp_path, work)


def test_a_revoked_token_is_dead_before_the_answer_says_so(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        for _ in range(20):
            gone = await new_token(house, bob)
            assert (await house.ask("GET", "/api/auth/me", gone)).status == 200
            assert (await house.ask("DELETE", f"/api/auth/tokens/{gone.token_id}", bob)).status == 200
            assert (await house.ask("GET", "/api/auth/me", gone)).status == 401
        assert (await house.ask("DELETE", f"/api/auth/tokens/{gone.token_id}", bob)).status == 404

    in_house(tmp_path, work)


def test_it_is_dead_also_when_the_one_who_revoked_it_left_in_the_middle(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        tokens = [await new_token(house, bob) for _ in range(30)]
        for token in tokens:
            leaving = asyncio.create_task(house.ask("DELETE", f"/api/auth/tokens/{token.token_id}", bob))
            await asyncio.sleep(0.002)
            leaving.cancel()
        await asyncio.gather(*(house.get("/api/auth/me", bob) for _ in range(5)))
        await asyncio.sleep(0.3)
        stored = {token["token_id"] for token in await house.get("/api/auth/tokens", bob)}
        rows = await house.host.db.read(lambda tx: {str(r[0]) for r in tx.execute("SELECT token_id FROM tokens")})
        assert stored == rows

    in_house(tmp_path, work)


def test_all_can_be_revoked_at_once_also_by_an_admin(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        others = [await new_token(house, bob) for _ in range(3)]
        assert (await house.ask("DELETE", "/api/auth/tokens?user=bob", others[0])).body == {"ended": 4}
        for gone in (bob, *others):
            assert (await house.ask("GET", "/api/auth/me", gone)).status == 401
        eve = await house.person("eve", Role.USER)
        assert (await house.ask("DELETE", "/api/auth/tokens?user=ann", eve)).status == 404
        assert (await house.ask("DELETE", "/api/auth/tokens?user=nobody", boss)).status == 404
        assert (await house.ask("DELETE", "/api/auth/tokens?user=eve", boss)).body == {"ended": 1}
        assert (await house.ask("GET", "/api/auth/me", eve)).status == 401

    in_house(tmp_path, work)


def test_when_it_was_used_last_is_written_down_now_and_then(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        settings = settings_in(tmp_path)
        async with open_house(settings, clock) as house:
            bob = await house.person("bob", Role.USER)
            clock.step_wall(100)
            await house.get("/api/auth/me", bob)
            await house.host.auth.accounts.keep_up()
        async with open_house(settings, clock) as house:
            (token,) = await house.get("/api/auth/tokens", bob)
            assert token["last_used_at"] == "2027-01-15T08:01:40.000Z"

    asyncio.run(run())


def test_somebody_has_only_so_many_tokens(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        for _ in range(99):
            await new_token(house, bob)
        said = await house.ask("POST", "/api/auth/tokens", bob, {"name": "x"})
        assert said.status == 409 and "100" in said.message

    in_house(tmp_path, work)


def test_who_has_no_account_has_no_tokens(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        for method, path, body in (
            ("GET", "/api/auth/tokens", None),
            ("POST", "/api/auth/tokens", {"name": "x"}),
            ("POST", "/api/auth/logout", {}),
            ("GET", "/api/auth/sessions", None),
        ):
            said = await house.ask(method, path, {"X-Admin-Token": "a very long secret"}, body)
            assert said.status == 409, said

    in_house(tmp_path, work, admin_secret="a very long secret")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer krt_1_x", "Bearer " + "x" * 5000, "Bearer krt_\xff_x"]
)
def test_what_is_no_token_is_nobody(tmp_path: Path, header: str) -> None:
    async def work(house: House) -> None:
        said = await house.ask("GET", "/api/auth/me", {"Authorization": header})
        assert said.status == 401 and said.code == "not_logged_in"
        assert (await house.ask("GET", "/healthz", {"Authorization": header})).status == 200

    in_house(tmp_path, work)
