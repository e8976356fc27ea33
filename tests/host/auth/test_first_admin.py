"""How a new cluster gets its first admin, and how nobody gets in that way twice."""

import asyncio
import logging
import stat
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from kohakuriver.model.errors import BadRequest
from tests.host.auth.house import PASSWORD, House, in_house, open_house, settings_in

CODE = "a long secret of the configuration"


async def register(house: House, name: str, code: str, token: bool = True) -> tuple[int, dict[str, str]]:
    body = {"username": name, "password": PASSWORD, "invitation": code} | ({"token_name": "t"} if token else {})
    said = await house.ask("POST", "/api/auth/register", body=body)
    return said.status, said.body


def test_the_first_start_writes_a_secret_that_only_its_owner_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(house: House) -> None:
        file = tmp_path / "host" / "first_admin_secret"
        secret = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(secret) >= 64
        assert str(file) in caplog.text and secret not in caplog.text
        assert (await house.get("/api/auth/status"))["needs_first_admin"] is True
        status, admin = await register(house, "root", secret)
        assert status == 200 and admin["role"] == "admin"
        assert not file.exists()
        assert (await house.get("/api/auth/status"))["needs_first_admin"] is False
        me = await house.get("/api/auth/me", {"Authorization": f"Bearer {admin['token']}"})
        assert (me["name"], me["role"], me["by"]) == ("root", "admin", "token")
        assert (await register(house, "second", secret))[0] == 403

    with caplog.at_level(logging.WARNING):
        in_house(tmp_path, work)


def test_of_many_who_hold_the_secret_at_once_one_becomes_admin(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        found = await asyncio.gather(*(register(house, f"u{n}", CODE) for n in range(20)))
        assert sorted(status for status, _ in found) == [200] + [403] * 19
        assert sum(user.role is Role.ADMIN for user in house.host.auth.accounts.users.values()) == 1

    in_house(tmp_path, work, admin_register_secret=CODE)
    assert not (tmp_path / "host" / "first_admin_secret").exists()


def test_a_restart_does_not_open_the_door_again(tmp_path: Path) -> None:
    async def run() -> None:
        settings = settings_in(tmp_path)
        async with open_house(settings) as house:
            secret = (tmp_path / "host" / "first_admin_secret").read_text().strip()
            status, admin = await register(house, "root", secret)
            assert status == 200
        async with open_house(settings) as house:
            assert not (tmp_path / "host" / "first_admin_secret").exists()
            assert (await register(house, "thief", secret))[0] == 403
            user_id = (await house.get("/api/auth/me", {"Authorization": f"Bearer {admin['token']}"}))["user_id"]
            await house.host.db.write(
                lambda tx: tx.execute("UPDATE users SET deleted_at = 1 WHERE user_id = ?", (int(user_id),))
            )
        async with open_house(settings_in(tmp_path, admin_register_secret=CODE)) as house:
            assert (await register(house, "thief", CODE))[0] == 403  # there was an account once

    asyncio.run(run())


def test_a_restart_before_anybody_came_keeps_the_secret(tmp_path: Path) -> None:
    found = []
    for _ in range(2):

        async def work(house: House) -> None:
            found.append((tmp_path / "host" / "first_admin_secret").read_text())

        in_house(tmp_path, work)
    assert found[0] == found[1]


def test_whoever_has_the_admin_secret_is_admin_without_an_account(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        master = {"X-Admin-Token": CODE}
        me = await house.get("/api/auth/me", master)
        assert (me["name"], me["role"], me["by"], me["user_id"]) == ("master", "admin", "secret", None)
        said = await house.ask("POST", "/api/auth/invitations", master, {"role": "admin"})
        assert said.status == 200
        assert (await register(house, "root", said.body["code"]))[0] == 200
        assert (await register(house, "nobody2", CODE))[0] == 403  # it lets nobody register
        assert (await house.trail(action="auth.invite.create"))[0]["user"] == "master"

    in_house(tmp_path, work, admin_secret=CODE)
    assert not (tmp_path / "host" / "first_admin_secret").exists()


def test_guessing_at_the_admin_secret_ends_after_a_few_tries(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        found = [await house.ask("GET", "/api/auth/me", {"X-Admin-Token": f"guess {n}"}) for n in range(30)]
        assert [said.status for said in found] == [401] * 20 + [429] * 10
        assert int(found[-1].headers["Retry-After"]) > 0
        assert len(await house.trail(action="auth.master", result="refused")) == 20

    in_house(tmp_path, work, admin_secret=CODE)


@pytest.mark.parametrize("header", ["", "x", "a" * 5000, "\xff"])
def test_no_admin_secret_is_nobody(tmp_path: Path, header: str) -> None:
    async def work(house: House) -> None:
        assert (await house.ask("GET", "/api/auth/me", {"X-Admin-Token": header})).status == 401

    in_house(tmp_path, work)


@pytest.mark.parametrize("name", ["master", "local", "host", "nobody", "system"])
def test_names_that_the_host_uses_itself_cannot_be_had(tmp_path: Path, name: str) -> None:
    async def work(house: House) -> None:
        status, answer = await register(house, name, CODE)
        assert status == 400 and "username" in str(answer)

    in_house(tmp_path, work, admin_register_secret=CODE)


def test_a_secret_that_could_be_guessed_is_refused_by_the_configuration() -> None:
    from kohakuriver.model import codec
    from kohakuriver.model.settings import HostSettings

    for name in ("admin_secret", "admin_register_secret"):
        with pytest.raises(BadRequest, match="shorter than 12"):
            codec.decode(HostSettings, {name: "short"})
