"""VPS over SSH: by their names, by keys of their own, by those they are assigned to, and not when SSH is off for them."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from tests.host.auth.house import Person
from tests.host.ssh.doors import Door, at_the_door


async def make(door: Door, who: Person, **wish: object) -> str:
    said = await door.house.ask("POST", "/api/vps", who, {"name": "lab", **wish})
    assert said.status in (200, 201, 202), said
    return str(said.body["vps"]["task_id"])


def test_a_vps_is_reached_by_its_name(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        ann, eve = await door.house.person("ann", Role.OPERATOR), await door.house.person("eve", Role.USER)
        await door.admit(ann)
        await door.admit(eve)
        vps = await make(door, ann)
        assert (await door.ssh("ann", "lab", "echo hi")).out == b"hi\n"
        assert (await door.ssh("ann", "lab+ada", "echo hi")).out == b"hi\n"
        assert (await door.jump("ann", "root@lab", "echo hi")).out == b"hi\n"
        assert (await door.jump("ann", f"root@{vps}.kohakuriver", "echo hi")).out == b"hi\n"
        assert (await door.ssh("eve", "lab", "true")).code == 255

    at_the_door(tmp_path, work)


def test_whoever_it_is_assigned_to_is_in_until_it_is_taken_from_him(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        ann, bob = await door.house.person("ann", Role.OPERATOR), await door.house.person("bob", Role.USER)
        await door.admit(bob)
        vps = await make(door, ann)
        assert (await door.house.ask("POST", f"/api/vps/{vps}/assignments", ann, {"user": "bob"})).status < 300
        sessions = [
            asyncio.ensure_future(door.ssh("bob", "lab", "sleep 60")),
            asyncio.ensure_future(door.jump("bob", "root@lab", "sleep 60")),
        ]
        while len(door.here.processes) < 2:
            await asyncio.sleep(0.02)
        assert door.house.host.auth.uses.is_somebody_inside(door.here.workloads[-1])
        assert (await door.house.ask("DELETE", f"/api/vps/{vps}/assignments/{bob.user_id}", ann)).status < 300
        async with asyncio.timeout(20):
            done = await asyncio.gather(*sessions)
            while not all(process.over for process in door.here.processes):
                await asyncio.sleep(0.02)
        assert all(ended.code != 0 for ended in done)
        assert (await door.ssh("bob", "lab", "true")).code == 255
        assert not door.house.host.auth.uses.is_somebody_inside(door.here.workloads[-1])

    at_the_door(tmp_path, work)


def test_a_key_of_its_own_leads_into_it_and_nowhere_else(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        ann = await door.house.person("ann", Role.OPERATOR)
        line = door.key_of("own").with_suffix(".pub").read_text()
        vps = await make(door, ann, ssh_key_mode="upload", ssh_public_key=line)
        other = await make(door, ann, name="other")
        for user in ("lab", vps):
            assert (await door.ssh("own", user, "echo hi")).out == b"hi\n"
        for user in ("other", other, "ann"):
            assert (await door.ssh("own", user, "true")).code == 255
        assert b"SSH-2.0-KohakuRiver" in (await door.ssh("own", "lab", "-W", "lab:22", stdin=b"")).out
        for elsewhere in (f"{other}:22", "other:22"):
            door.here.reached.clear()
            assert (await door.ssh("own", "lab", "-W", elsewhere, stdin=b"")).code == 255
            assert {task for task, _, _ in door.here.reached} == {int(vps)}, "a name like any other, looked up inside"

    at_the_door(tmp_path, work)


TAKEN = {
    "the owner is disabled": ("PATCH", "/api/auth/users/{owner}", {"disabled": True}),
    "the owner is made viewer": ("PATCH", "/api/auth/users/{owner}", {"role": "viewer"}),
    "the owner is deleted": ("DELETE", "/api/auth/users/{owner}", None),
    "the key is taken away": ("DELETE", "/api/vps/{vps}/key", None),
}


@pytest.mark.parametrize("how", TAKEN)
def test_who_is_in_by_a_key_of_its_own_is_cut_off_when_that_is_taken_away(tmp_path: Path, how: str) -> None:
    async def work(door: Door) -> None:
        ann, boss = await door.house.person("ann", Role.OPERATOR), await door.house.person("zoe", Role.ADMIN)
        line = door.key_of("own").with_suffix(".pub").read_text()
        vps = await make(door, ann, ssh_key_mode="upload", ssh_public_key=line)
        jump = f"ssh {' '.join(door.options('own'))} -p {door.keeper.port} -W lab:22 lab@127.0.0.1"
        sessions = [
            asyncio.ensure_future(door.ssh("own", "lab", "sleep 60")),
            asyncio.ensure_future(door.run("ssh", "own", "-o", f"ProxyCommand={jump}", "root@lab", "sleep 60")),
            asyncio.ensure_future(door.ssh("own", "lab", "-N")),
        ]
        proxy, uses = await door.keeper.ready(), door.house.host.auth.uses
        async with asyncio.timeout(30):  # three connections, a session, a way through, and a session behind it
            while len(uses._inside.get(Snowflake(int(vps)), ())) < 6 or len(door.here.processes) < 2:
                await asyncio.sleep(0.02)
        method, path, body = TAKEN[how]
        said = await door.house.ask(method, path.format(owner=ann.user_id, vps=vps), boss, body)
        assert said.status == 200, said
        async with asyncio.timeout(30):
            assert {ended.code for ended in await asyncio.gather(*sessions)} == {255}
            while not all(process.over for process in door.here.processes) or proxy.connections:
                await asyncio.sleep(0.02)
        assert (await door.ssh("own", "lab", "true")).code == 255
        assert not uses.is_somebody_inside(Snowflake(int(vps)))

    at_the_door(tmp_path, work)


def test_on_a_connection_that_stays_open_nothing_begins_once_the_workload_is_taken_away(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        ann, bob = await door.house.person("ann", Role.OPERATOR), await door.house.person("bob", Role.USER)
        await door.admit(bob)
        vps = await make(door, ann)
        assert (await door.house.ask("POST", f"/api/vps/{vps}/assignments", ann, {"user": "bob"})).status < 300
        shared = ["-o", f"ControlPath={tmp_path}/c", "-p", str(door.keeper.port), "lab@127.0.0.1"]
        master = asyncio.ensure_future(door.run("ssh", "bob", "-M", "-N", *shared))
        async with asyncio.timeout(30):
            while not (tmp_path / "c").exists():
                await asyncio.sleep(0.02)
        assert (await door.run("ssh", "bob", *shared, "true")).code == 0
        assert (await door.house.ask("DELETE", f"/api/vps/{vps}/assignments/{bob.user_id}", ann)).status < 300
        async with asyncio.timeout(30):
            assert (await master).code == 255
        assert (await door.run("ssh", "bob", *shared, "true")).code == 255

    at_the_door(tmp_path, work)


def test_nobody_comes_by_ssh_where_it_is_off(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        ann = await door.house.person("ann", Role.OPERATOR)
        await door.admit(ann)
        vps = await make(door, ann, ssh_key_mode="disabled")
        for user in ("lab", vps):
            assert (await door.ssh("ann", user, "true")).code == 255
        assert (await door.ssh("ann", "ann", "-W", f"{vps}:22")).code == 255

    at_the_door(tmp_path, work)
