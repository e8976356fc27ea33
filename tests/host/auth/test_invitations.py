"""Nobody comes in uninvited, and an invitation is good for exactly what was said."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from tests.host.auth.house import House, in_house, open_house, settings_in
from tests.manual_clock import ManualClock


def test_the_invited_becomes_what_the_invitation_says(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        await house.group("vision")
        code = await house.invitation(boss, role="operator", groups=["vision"])
        said = await house.register("bob", code)
        assert (said.status, said.body["role"]) == (200, "operator")
        me = await house.get("/api/auth/me", {"Authorization": f"Bearer {said.body['token']}"})
        assert (me["role"], me["groups"]) == ("operator", ["vision"])
        assert (await house.register("eve", code)).status == 403

    in_house(tmp_path, work)


def test_one_use_is_one_use_under_fifty_parallel_tries(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        code = await house.invitation(boss)
        found = await asyncio.gather(*(house.register(f"u{n}", code) for n in range(50)))
        statuses = [said.status for said in found]
        assert statuses.count(200) == 1 and set(statuses) <= {200, 403, 429}  # 429: so many at once look like guesses
        assert len(house.host.auth.accounts.users) == 2
        assert await house.get("/api/auth/invitations", boss) == []
        assert len(await house.trail(action="auth.register", result="ok")) == 1

    in_house(tmp_path, work)


def test_so_many_uses_are_so_many_people(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        code = await house.invitation(boss, uses=7)
        found = await asyncio.gather(*(house.register(f"u{n}", code) for n in range(20)))
        assert [said.status for said in found].count(200) == 7

    in_house(tmp_path, work)


def test_a_name_that_is_taken_costs_no_use(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        code = await house.invitation(boss)
        assert (await house.register("ann", code)).status == 409
        assert (await house.register("bob", code)).status == 200

    in_house(tmp_path, work)


def test_the_name_of_somebody_who_was_deleted_is_never_given_again(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
        assert (await house.ask("DELETE", f"/api/auth/users/{bob.user_id}", boss)).status == 200
        assert (await house.register("bob", await house.invitation(boss))).status == 409

    in_house(tmp_path, work)


def test_an_invitation_ends_by_itself_and_can_be_taken_back(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            boss = await house.person("ann", Role.ADMIN)
            plain, short = await house.invitation(boss, uses=9), await house.invitation(boss, uses=9, expire_hours=1)
            clock.step_wall(3599)
            assert (await house.register("a", short)).status == 200
            clock.step_wall(1)
            assert (await house.register("b", short)).status == 403
            clock.step_wall(71 * 3600 - 1)
            assert (await house.register("c", plain)).status == 200
            (left,) = await house.get("/api/auth/invitations", boss)
            assert left["uses_left"] == 8 and plain not in str(left)
            path = f"/api/auth/invitations/{left['invitation_id']}"
            assert (await house.ask("DELETE", path, boss)).status == 200
            assert (await house.register("d", plain)).status == 403
            assert (await house.ask("DELETE", path, boss)).status == 404

    asyncio.run(run())


@pytest.mark.parametrize("role", ["viewer", "user", "operator", "admin"])
def test_an_operator_invites_viewers_only_and_an_admin_anybody(tmp_path: Path, role: str) -> None:
    async def work(house: House) -> None:
        operator, boss = await house.person("op", Role.OPERATOR), await house.person("ann", Role.ADMIN)
        said = await house.ask("POST", "/api/auth/invitations", operator, {"role": role})
        assert said.status == (200 if role == "viewer" else 403)
        assert (await house.ask("POST", "/api/auth/invitations", boss, {"role": role})).status == 200

    in_house(tmp_path, work)


@pytest.mark.parametrize("role", ["anony", "node", "master", "", None])
def test_nobody_is_invited_to_be_what_no_person_is(tmp_path: Path, role: object) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        said = await house.ask("POST", "/api/auth/invitations", boss, {"role": role})
        assert said.status == 400 and said.message.startswith("role")

    in_house(tmp_path, work)


def test_an_operator_gives_no_groups_and_sees_and_takes_back_only_his_own(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        one, two = await house.person("one", Role.OPERATOR), await house.person("two", Role.OPERATOR)
        boss = await house.person("ann", Role.ADMIN)
        await house.group("vision")
        body = {"role": "viewer", "groups": ["vision"]}
        assert (await house.ask("POST", "/api/auth/invitations", one, body)).status == 403
        await house.invitation(one, role="viewer")
        (mine,) = await house.get("/api/auth/invitations", one)
        assert await house.get("/api/auth/invitations", two) == []
        path = f"/api/auth/invitations/{mine['invitation_id']}"
        assert (await house.ask("DELETE", path, two)).status == 404
        assert len(await house.get("/api/auth/invitations", boss)) == 1
        assert (await house.ask("DELETE", path, one)).status == 200

    in_house(tmp_path, work)


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "viewer"}, None])
def test_who_loses_his_standing_loses_his_open_invitations(tmp_path: Path, change: dict[str, object] | None) -> None:
    async def work(house: House) -> None:
        rogue, boss = await house.person("rogue", Role.ADMIN), await house.person("ann", Role.ADMIN)
        code = await house.invitation(rogue, role="admin", uses=10)
        method = "PATCH" if change else "DELETE"
        assert (await house.ask(method, f"/api/auth/users/{rogue.user_id}", boss, change)).status == 200
        assert (await house.register("friend", code)).status == 403

    in_house(tmp_path, work)


def test_a_group_that_is_gone_keeps_nobody_out(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        await house.group("vision")
        code = await house.invitation(boss, groups=["vision"])
        assert (await house.ask("DELETE", "/api/auth/groups/vision", boss)).status == 200
        assert (await house.register("bob", code)).status == 200
        said = await house.ask("POST", "/api/auth/invitations", boss, {"groups": ["vision"]})
        assert said.status == 404 and "vision" in said.message

    in_house(tmp_path, work)


@pytest.mark.parametrize("code", ["", "x", "kri_1_x", "kri_99999999999999999999999999_x", "krt_1_x", "\u00e9" * 500])
def test_a_code_that_is_none_lets_nobody_in(tmp_path: Path, code: str) -> None:
    async def work(house: House) -> None:
        said = await house.register("bob", code)
        assert said.status == 403 and said.message.startswith("invitation")

    in_house(tmp_path, work)


def test_guessing_at_codes_ends_after_a_few_tries(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        found = [await house.register(f"u{n}", f"kri_{n}_guess") for n in range(30)]
        assert [said.status for said in found] == [403] * 20 + [429] * 10

    in_house(tmp_path, work)


@pytest.mark.parametrize(
    "name", ["", "Bob", "-bob", "bob smith", "b\u00f6b", "../bob", "a" * 64, "bob\n", "bob:x", "@b"]
)
def test_names_are_small_letters_digits_and_a_few_signs(tmp_path: Path, name: str) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        said = await house.register(name, await house.invitation(boss))
        assert said.status == 400 and said.message.startswith("username")

    in_house(tmp_path, work)


def test_a_registration_in_a_browser_begins_a_session(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        said = await house.register("b.o-b_1@lab", await house.invitation(boss), token_name=None)
        assert said.status == 200 and said.body["token"] is None and said.body["csrf_token"]
        assert "HttpOnly" in said.headers["Set-Cookie"]

    in_house(tmp_path, work)
