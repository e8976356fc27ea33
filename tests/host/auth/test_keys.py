"""SSH keys of accounts: added by their owner, never more than the login that added them, known to nobody else."""

from pathlib import Path

from kohakuriver.model.access import Role
from tests.host.auth.house import PUBLIC_KEY, House, Person, Said, in_house

TEXT = PUBLIC_KEY.rpartition(" ")[0]


async def add(house: House, who: Person, **fields: object) -> Said:
    return await house.ask("POST", "/api/auth/keys", who, {"public_key": PUBLIC_KEY, **fields})


def test_a_key_is_added_listed_and_taken_away(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        made = (await add(house, bob)).body
        assert made["name"] == "ada@laptop" and made["fingerprint"].startswith("SHA256:")
        assert await house.get("/api/auth/keys", bob) == [made]
        assert [caller.name for caller in house.host.auth.accounts.holders(TEXT)] == ["bob"]
        assert (await house.ask("DELETE", f"/api/auth/keys/{made['key_id']}", bob)).status == 200
        assert await house.get("/api/auth/keys", bob) == [] and not house.host.auth.accounts.holders(TEXT)
        assert [entry["action"] for entry in await house.trail(user="bob")] == ["auth.key.add", "auth.key.delete"]

    in_house(tmp_path, work)


def test_the_same_key_twice_is_refused_but_nobody_keeps_others_from_theirs(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        assert (await add(house, eve, name="not mine")).status == 200
        assert (await add(house, bob)).status == 200
        assert (await add(house, bob)).status == 409
        assert sorted(caller.name for caller in house.host.auth.accounts.holders(TEXT)) == ["bob", "eve"]

    in_house(tmp_path, work)


def test_a_key_that_cannot_be_used_is_refused_by_its_field(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        said = await add(house, bob, public_key="ssh-dss AAAA")
        assert said.status == 400 and said.message.startswith("public_key: keys of the kind 'ssh-dss'")

    in_house(tmp_path, work)


def test_a_key_is_never_more_than_the_token_that_added_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        small = await house.person("ann", Role.ADMIN, token_role=Role.VIEWER)
        assert (await add(house, small)).body["role"] == "viewer"
        assert [caller.role for caller in house.host.auth.accounts.holders(TEXT)] == [Role.VIEWER]

    in_house(tmp_path, work)


def test_a_key_ends_with_its_account(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        accounts = house.host.auth.accounts
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
        await add(house, bob)
        (caller,) = accounts.holders(TEXT)
        cuts: list[str] = []
        with accounts.watch(caller, lambda: cuts.append("cut")):
            assert (await house.ask("PATCH", f"/api/auth/users/{bob.user_id}", boss, {"disabled": True})).status == 200
            assert cuts == ["cut"] and accounts.holders(TEXT) == []
        await house.ask("PATCH", f"/api/auth/users/{bob.user_id}", boss, {"disabled": False})
        assert [caller.name for caller in accounts.holders(TEXT)] == ["bob"]
        assert (await house.ask("DELETE", f"/api/auth/users/{bob.user_id}", boss)).status == 200
        assert accounts.holders(TEXT) == []

    in_house(tmp_path, work)


def test_when_a_key_was_used_is_remembered(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        await add(house, bob)
        (caller,) = house.host.auth.accounts.holders(TEXT)
        assert house.host.auth.accounts.came(caller, "10.0.0.1").address == "10.0.0.1"
        await house.host.auth.accounts.keep_up()
        (key,) = await house.get("/api/auth/keys", bob)
        assert key["last_used_at"] is not None

    in_house(tmp_path, work)


def test_an_account_has_only_so_many_keys(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        for number in range(50):
            await house.key(bob, f"ssh-ed25519 {number}")
        said = await add(house, bob)
        assert said.status == 409 and "50 SSH keys" in said.message

    in_house(tmp_path, work)
