"""Admins change accounts, and there is always one who can."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from tests.host.auth.house import House, Person, in_house


def path_of(who: Person) -> str:
    return f"/api/auth/users/{who.user_id}"


LOSSES: list[tuple[str, dict[str, object] | None]] = [
    ("PATCH", {"role": "operator"}),
    ("PATCH", {"disabled": True}),
    ("DELETE", None),
]


@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_the_last_admin_stays(tmp_path: Path, method: str, body: dict[str, object] | None) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        locked = await house.person("locked", Role.ADMIN)
        assert (await house.ask("PATCH", path_of(locked), boss, {"disabled": True})).status == 200
        session = await house.in_browser(boss)
        said = await house.ask(method, path_of(boss), boss, body)
        assert said.status == 409 and "last admin" in said.message
        assert (await house.get("/api/auth/me", session))["role"] == "admin"  # nothing of it was done

    in_house(tmp_path, work)


@pytest.mark.parametrize(("method", "body"), LOSSES)
@pytest.mark.parametrize("admins", [2, 5])
def test_admins_who_remove_each_other_at_once_leave_one(
    tmp_path: Path, method: str, body: dict[str, object] | None, admins: int
) -> None:
    async def work(house: House) -> None:
        bosses = [await house.person(f"boss{n}", Role.ADMIN) for n in range(admins)]
        pairs = [(bosses[n], bosses[(n + 1) % admins]) for n in range(admins)]
        found = await asyncio.gather(*(house.ask(method, path_of(other), boss, body) for boss, other in pairs))
        assert {said.status for said in found} <= {200, 401, 403, 404, 409}
        left = [
            user for user in house.host.auth.accounts.users.values() if user.role is Role.ADMIN and not user.disabled
        ]
        assert len(left) >= 1
        for _ in range(admins):  # whoever is left tries to be alone, and cannot go further than that
            await asyncio.gather(*(house.ask(method, path_of(b), a, body) for a in bosses for b in bosses))
        left = [
            user for user in house.host.auth.accounts.users.values() if user.role is Role.ADMIN and not user.disabled
        ]
        assert len(left) == 1

    in_house(tmp_path, work)


def test_a_disabled_person_is_nobody_until_he_is_let_in_again(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        await house.with_password(bob)
        session = await house.in_browser(bob)
        assert (await house.ask("PATCH", path_of(bob), boss, {"disabled": True})).body["disabled"] is True
        for who in (bob, session):
            assert (await house.ask("GET", "/api/auth/me", who)).status == 401
        assert (await house.log_in("bob")).status == 401
        assert (await house.ask("PATCH", path_of(bob), boss, {"disabled": False})).status == 200
        assert (await house.ask("GET", "/api/auth/me", bob)).status == 200
        assert (await house.ask("GET", "/api/auth/me", session)).status == 401
        assert (await house.log_in("bob")).status == 200

    in_house(tmp_path, work)


def test_a_deleted_person_leaves_his_tasks_and_his_name(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        task_id = await house.task(bob)
        assert (await house.ask("DELETE", path_of(bob), boss)).status == 200
        assert (await house.ask("GET", "/api/auth/me", bob)).status == 401
        assert [user["name"] for user in await house.get("/api/auth/users", boss)] == ["ann"]
        assert (await house.get(f"/api/tasks/{task_id}", boss))["owner"] == "bob"
        for method, body in LOSSES:
            assert (await house.ask(method, path_of(bob), boss, body)).status == 404
        rows = await house.host.db.read(lambda tx: tx.execute("SELECT count(*) FROM tokens").fetchone()[0])
        assert rows == 1

    in_house(tmp_path, work)


def test_a_change_is_whole_or_not_at_all(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        said = await house.ask("PATCH", path_of(bob), boss, {"role": "operator", "groups": ["no such group"]})
        assert said.status == 400
        said = await house.ask("PATCH", path_of(bob), boss, {"role": "operator", "groups": ["nowhere"]})
        assert said.status == 404 and "nowhere" in said.message
        (found,) = [user for user in await house.get("/api/auth/users", boss) if user["name"] == "bob"]
        assert (found["role"], found["groups"]) == ("user", [])

    in_house(tmp_path, work)


def test_an_admin_can_give_a_new_password_and_that_ends_the_sessions(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        session = await house.in_browser(bob)
        said = await house.ask("PATCH", path_of(bob), boss, {"password": "something quite new"})
        assert said.status == 200 and "something" not in str(said.body)
        assert (await house.ask("GET", "/api/auth/me", session)).status == 401
        assert (await house.log_in("bob", "something quite new")).status == 200
        (entry,) = await house.trail(action="auth.user.set")
        assert entry["detail"] == "a new password" and "something" not in str(entry)

    in_house(tmp_path, work)


def test_an_account_is_told_whole(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision")
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.VIEWER, "vision")
        await house.with_password(bob)
        await house.log_in("bob")
        (found,) = [user for user in await house.get("/api/auth/users", boss) if user["name"] == "bob"]
        assert (found["user_id"], found["role"], found["groups"]) == (str(bob.user_id), "viewer", ["vision"])
        assert found["created_at"] <= found["last_login_at"]

    in_house(tmp_path, work)
