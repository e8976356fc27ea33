"""Whose a VPS is: its owner's, those' it is assigned to, and nobody else's; how many a group may have."""

import asyncio
from pathlib import Path

from kohakuriver.host.store import workload_use
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.vps_api import VpsId
from tests.host.auth.house import House, Person, in_house

V = "/api/vps"


async def may_use(house: House, who: Person, role: Role, vps: str) -> bool:
    caller = Caller(who.name, role, who.user_id)
    return await house.host.db.read(lambda tx: workload_use.may_use(tx, Snowflake(int(vps)), caller))


def test_only_operators_make_them_and_only_people_who_may_use_one_know_of_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, ann = await house.person("boss", Role.OPERATOR), await house.person("ann", Role.USER)
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        assert (await house.ask("POST", V, ann, {})).status == 403
        vps = await house.vps(boss, name="box")
        people = await house.ask("POST", f"{V}/{vps}/assignments", boss, {"user": "bob"})
        assert [(each["user"], each["assigned_by"]) for each in people.body] == [("bob", "boss")]
        for who, known in ((boss, True), (bob, True), (ann, False), (eve, False)):
            assert (await house.ask("GET", f"{V}/{vps}", who)).status == (200 if known else 404)
            assert (await house.ask("GET", f"{V}/find?name=box", who)).status == (200 if known else 404)
            for shown in (f"{V}/my", V, f"{V}?owner=boss"):
                assert len(await house.get(shown, who)) == known
            assert await house.get(f"{V}?owner=bob", who) == []
            role = Role.OPERATOR if who is boss else Role.USER
            assert await may_use(house, who, role, vps) is known
        assert (await house.ask("POST", f"{V}/{vps}/stop", bob)).status == 403, "he sees it and may use it, not end it"
        assert (await house.ask("POST", f"{V}/{vps}/stop", eve)).status == 404
        assert (await house.ask("POST", f"{V}/{vps}/assignments", bob, {"user": "eve"})).status == 403
        gone = await house.ask("DELETE", f"{V}/{vps}/assignments/{bob.user_id}", boss)
        assert gone.body == []
        assert (await house.ask("GET", f"{V}/{vps}", bob)).status == 404
        assert not await may_use(house, bob, Role.USER, vps)

    in_house(tmp_path, work)


def test_assignments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("boss", Role.OPERATOR), await house.person("bob", Role.USER)
        vps = await house.vps(boss)
        path = f"{V}/{vps}/assignments"
        assert (await house.ask("POST", path, boss, {"user": "nobody"})).message == "user: there is no account nobody"
        assert (await house.ask("POST", path, boss, {"user": "boss"})).status == 409
        assert (await house.ask("POST", path, boss, {"user": "bob"})).status == 200
        assert (await house.ask("POST", path, boss, {"user": "bob"})).status == 409
        assert (await house.ask("DELETE", f"{path}/{boss.user_id}", boss)).status == 404
        assert (await house.ask("DELETE", f"{V}/{vps}", boss)).status == 200
        assert (await house.ask("GET", f"{V}/{vps}", bob)).status == 404, "with the VPS its assignments go"

    in_house(tmp_path, work)


def test_a_name_means_ones_own_vps_before_others_and_several_are_told_apart(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        ann, bob = await house.person("ann", Role.OPERATOR), await house.person("bob", Role.OPERATOR)
        eve, viewer = await house.person("eve", Role.USER), await house.person("viewer", Role.VIEWER)
        of_ann, of_bob = await house.vps(ann, name="box"), await house.vps(bob, name="box")

        async def found(who: Person, name: str) -> str:
            return str((await house.get(f"{V}/find?name={name}", who))["task_id"])

        assert await found(ann, "box") == of_ann and await found(bob, "box") == of_bob
        assert await found(ann, "bob/box") == of_bob == await found(viewer, "bob/box")
        said = await house.ask("GET", f"{V}/find?name=box", viewer)
        assert said.status == 409 and f"ann/box ({of_ann}), bob/box ({of_bob})" in said.message
        assert (await house.ask("POST", f"{V}/{of_bob}/assignments", ann, {"user": "eve"})).status == 200
        assert await found(eve, "box") == of_bob
        assert (await house.ask("GET", f"{V}/find?name=ann/box", eve)).status == 404
        await house.ask("DELETE", f"{V}/{of_ann}", ann)
        assert (await house.ask("GET", f"{V}/find?name=ann/box", ann)).status == 404, "what is gone has no name"

    in_house(tmp_path, work)


def test_a_group_has_no_more_vps_that_are_not_stopped_than_it_may(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("lab", max_vps=2)
        ann = await house.person("ann", Role.OPERATOR, "lab")
        bob = await house.person("bob", Role.OPERATOR, "lab")
        boss = await house.person("boss", Role.OPERATOR)
        first = await house.vps(ann)
        await house.vps(bob)
        said = await house.ask("POST", V, ann, {})
        assert said.status == 429 and "max_vps" in said.message
        await house.vps(boss)
        await house.ask("DELETE", f"{V}/{first}", ann)
        await house.vps(bob)

    in_house(tmp_path, work)


def test_who_lost_it_between_the_question_and_his_coming_in_is_cut_off(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss, bob = await house.person("boss", Role.OPERATOR), await house.person("bob", Role.USER)
        vps, uses = await house.vps(boss), house.host.auth.uses
        caller, asked = Caller("bob", Role.USER, bob.user_id), VpsId(task_id=Snowflake(int(vps)))
        assert (await house.ask("POST", f"{V}/{vps}/assignments", boss, {"user": "bob"})).status == 200
        await uses.check(caller, asked.task_id)
        came, cut = asyncio.Event(), asyncio.Event()
        with uses.watch(caller, Ownership.WORKLOAD_USE, asked, came.set):
            await asyncio.sleep(0.05)
            assert not came.is_set(), "it is his"
        assert (await house.ask("DELETE", f"{V}/{vps}/assignments/{bob.user_id}", boss)).status == 200
        with uses.watch(caller, Ownership.WORKLOAD_USE, asked, cut.set):
            async with asyncio.timeout(30):
                await cut.wait()
        assert not came.is_set()

    in_house(tmp_path, work)
