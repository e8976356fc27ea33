"""The trail: whatever changes anything leaves a line, and no line ever changes."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.host.background.accounts import AccountsKeeper
from kohakuriver.host.services.image_work import ImageWork
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.errors import StoreUnavailable
from kohakuriver.model.host_api import CHANNELS, ROUTES
from kohakuriver.model.overlay_part import OverlayWish
from kohakuriver.model.route import Entry, Route
from kohakuriver.system.docker_environments import EnvironmentContainers, SeenEnvironment
from tests.host.auth.house import PASSWORD, House, Person, in_house, open_house, settings_in
from tests.host.auth.test_quotas import a_node_joins
from tests.host.auth.test_walk import request_of, things_in, upgrade_for
from tests.manual_clock import ManualClock

# What leaves no line of its own, and why.
SILENT = {
    "auth.ticket": "it changes nothing; the socket that it opens is what counts",
    "node.heartbeat": "every five seconds of every node",
    "node.orphan.remove": "tried where a node has one, in the tests of restored databases",
    "node.report": "every change of every task, which its own history tells",
    "node.rotate-key": "tried where there is a runner, in the tests of joining",
    "overlay.ip.validate": "it changes nothing",
    "vps.snapshot.create": "tried where there is a node, in the tests of VPS",
    "vps.snapshot.delete": "tried where there is a node, in the tests of VPS",
}
# Requests that need more than the smallest members to go well.
SPECIAL: dict[str, dict[str, object]] = {
    "auth.group.delete": {"group": "empty"},
    "node.delete": {"hostname": "gone"},
    "task.submit": {"command": "true"},
}


async def ready(house: House, route_name: str) -> tuple[Person, dict[str, object]]:
    """Somebody for whom the request goes well, and what it needs besides its smallest members."""
    admin = await house.person(f"ann{house.host.ids.next()}", Role.ADMIN)
    await house.with_password(admin)
    if route_name in ("task.pause", "task.resume"):
        await a_node_joins(house)
    more = dict(SPECIAL.get(route_name, {}))
    if route_name == "auth.login":
        more = {"username": admin.name, "password": PASSWORD}
    if route_name == "auth.register":
        more = {"invitation": await house.invitation(admin)}
    if route_name == "auth.invite.revoke":
        await house.invitation(admin)
        more = {"invitation_id": (await house.get("/api/auth/invitations", admin))[-1]["invitation_id"]}
    if route_name == "node.token.revoke":
        assert (await house.ask("POST", "/api/join-tokens", admin, {})).status == 200
        more = {"join_id": (await house.get("/api/join-tokens", admin))[-1]["join_id"]}
    if route_name.startswith("docker."):
        more = has_environments(house, [] if route_name == "docker.env.create" else ["lab"])
    if route_name.startswith("overlay."):
        more = await has_a_part(house, admin, route_name)
    await house.group("empty")
    return admin, more


class MadeUpContainers:
    """Environments as a daemon would have them."""

    mark = "made up"

    def __init__(self, names: list[str]) -> None:
        self._seen = [SeenEnvironment(name=name, image="i", status="running", created_at=0) for name in names]

    async def all(self) -> list[SeenEnvironment]:
        return self._seen

    async def get(self, name: str) -> SeenEnvironment:
        return self._seen[0]

    async def remove(self, name: str) -> None:
        """It is done."""

    start = stop = remove


def has_environments(house: House, names: list[str]) -> dict[str, object]:
    """From now on this host has Docker with these environments, and a tarball."""
    work = house.host.environments.work
    work.containers = cast(EnvironmentContainers, MadeUpContainers(names))
    part = work.tarballs.new_part("lab-1700000000")
    part.write_bytes(b"")
    work.tarballs.finish(part, "lab-1700000000", "0" * 64)
    return {"name": "lab"}


async def has_a_part(house: House, admin: Person, route_name: str) -> dict[str, object]:
    """A node with a part of the overlay, offline when it is to be taken back."""
    await a_node_joins(house)
    await house.host.overlay.join("alpha", OverlayWish(address="198.51.100.1"))
    if route_name in ("overlay.release", "overlay.cleanup"):
        house.host.registry.nodes["alpha"].online = False
        return {"runner": "alpha"} if route_name == "overlay.release" else {}
    if route_name == "overlay.ip.reserve":
        return {"runner": "alpha"}
    said = await house.ask("POST", "/api/overlay/ip/reserve", admin, {"runner": "alpha"})
    assert said.status == 200, said
    return {"token": said.body["token"]}


async def nothing(self: object) -> None:
    """In the place of what would ask Docker, or change this machine's network."""


async def everything_runs(house: House) -> None:
    """As if a node had them all."""
    change = "UPDATE tasks SET document = replace(document, '\"' || status || '\"', '\"running\"'), status = 'running'"
    await house.host.db.write(lambda tx: tx.execute(change))


CHANGING = [
    route
    for route in ROUTES
    if (route.method != "GET" or route.name == "audit.export")
    and route.needs is not Role.NODE
    and route.owns is not Ownership.JOIN
    and not route.name.startswith(
        ("fs.", "environment.fs.")
    )  # those need a runner that has the files: tests/cluster/test_files.py
]


@pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)
def test_whatever_changes_anything_leaves_a_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: Route[Any, Any]
) -> None:
    monkeypatch.setattr(ImageWork, "connect", nothing)
    monkeypatch.setattr(OverlayNetworkManager, "step", nothing)

    async def work(house: House) -> None:
        if route.name in SILENT:
            return
        admin, more = await ready(house, route.name)
        things = await things_in(house, "owner")
        members = things.members(route) | more
        if route.name.startswith("vps."):
            if "task_id" in route.path_fields:
                members["task_id"] = await house.vps(admin, lease_seconds=3600, ssh_key_mode="generate")
            if route.name == "vps.assign":
                members["user"] = things.owner.name
            if route.name == "vps.unassign":
                path = f"/api/vps/{members['task_id']}/assignments"
                assert (await house.ask("POST", path, admin, {"user": things.owner.name})).status == 200
        if route.name.startswith("vps.") or route.name in ("task.pause", "task.resume"):
            await everything_runs(house)
        if route.name.startswith("node.") and "hostname" in route.path_fields:
            await a_node_joins(house)
            members["hostname"] = "alpha"
            house.host.registry.nodes["alpha"].online = route.name != "node.delete"
        before = await house.trail()
        path, body = request_of(route, members)
        said = await house.ask(route.method, path, admin, body)
        assert said.status < 300, said
        fresh = (await house.trail())[len(before) :]
        mine = [entry for entry in fresh if entry["user"] in (admin.name, "newcomer")]
        assert len(mine) == 1, fresh
        named = route.name.removesuffix("-many")
        assert (mine[0]["action"], mine[0]["result"], mine[0]["address"]) == (named, "ok", "127.0.0.1")

    in_house(tmp_path, work, overlay_enabled=route.name.startswith("overlay."))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER, Role.OPERATOR])
def test_whatever_somebody_may_not_do_leaves_a_line_that_names_it(tmp_path: Path, role: Role) -> None:
    async def work(house: House) -> None:
        things, eve = await things_in(house, "owner"), await house.person("eve", role)
        everything: tuple[Entry, ...] = (*ROUTES, *CHANNELS)
        too_much = [entry for entry in everything if role < entry.needs < Role.NODE]
        for entry in too_much:
            path, body = request_of(entry, things.members(entry))
            before = len(await house.trail())
            said = await house.ask(entry.method, path, {**eve.headers, **upgrade_for(entry)}, body)
            assert said.status == 403, said
            (line,) = (await house.trail())[before:]
            assert (line["user"], line["action"], line["result"]) == ("eve", entry.name, "refused")
            assert line["address"] == "127.0.0.1" and entry.needs.label in line["detail"]

    in_house(tmp_path, work)


def test_what_was_not_allowed_leaves_a_line_too(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        eve = await house.person("eve", Role.USER)
        await house.ask("GET", "/api/auth/users", eve)
        await house.submit(eve, privileged=True)
        await house.ask("GET", "/api/auth/users")  # nobody: there is no end of those
        entries = await house.trail(result="refused")
        assert [(entry["user"], entry["action"]) for entry in entries] == [
            ("eve", "auth.user.list"),
            ("eve", "task.submit"),
        ]
        assert "role admin" in entries[0]["detail"]

    in_house(tmp_path, work)


def test_who_fails_all_the_time_does_not_fill_the_disk(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        eve = await house.person("eve", Role.USER)
        notes = house.host.auth.notes
        await notes.write()
        for _ in range(3):
            await asyncio.gather(*(house.ask("GET", "/api/auth/users", eve) for _ in range(300)))
        entries = await house.trail(result="refused")
        assert len(entries) <= 1000  # at most 200 a second
        left_out = [entry for entry in await house.trail(action="audit") if "left out" in entry["detail"]]
        assert len(entries) + sum(int(entry["detail"].split()[0]) for entry in left_out) == 900

    in_house(tmp_path, work)


def test_notes_survive_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        eve = await house.person("eve", Role.USER)
        write, notes = house.host.db.write, house.host.auth.notes

        async def full(job: object) -> None:
            raise StoreUnavailable("no space")

        house.host.db.write = full  # type: ignore[method-assign, assignment]
        await house.ask("GET", "/api/auth/users", eve)
        with pytest.raises(StoreUnavailable):
            await notes.write()
        house.host.db.write = write  # type: ignore[method-assign]
        assert len(await house.trail(user="eve", result="refused")) == 1

    in_house(tmp_path, work)


def test_the_trail_is_never_changed_and_cut_only_at_its_old_end(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        settings = settings_in(tmp_path, audit_retention_days=1)
        async with open_house(settings, clock) as house:
            boss = await house.person("ann", Role.ADMIN)
            for statement in (
                "UPDATE audit SET user = 'eve'",
                "DELETE FROM audit",
                "DELETE FROM audit WHERE entry_id = 2",
            ):
                await house.task(boss)

                def forge(tx: sqlite3.Connection, statement: str = statement) -> None:
                    tx.execute(statement)

                with pytest.raises(sqlite3.IntegrityError, match="trail"):
                    await house.host.db.write(forge)
            clock.step_wall(86400 - 10)
            await house.task(boss)
            keeper = AccountsKeeper(settings, house.host.auth, house.host.db, clock)
            await keeper.sweep()
            assert len(await house.trail()) == 4
            clock.step_wall(11)
            await keeper.sweep()
            assert len(await house.trail()) == 1
            with pytest.raises(sqlite3.IntegrityError, match="old end"):
                await house.host.db.write(lambda tx: tx.execute("DELETE FROM audit"))
            clock.step_wall(-10 * 86400)  # somebody sets the clock back: nothing new may go
            await house.task(boss)
            await keeper.sweep()
            assert len(await house.trail()) == 2

    asyncio.run(run())


def test_the_old_end_goes_in_pieces(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        settings = settings_in(tmp_path, audit_retention_days=1)
        async with open_house(settings, clock) as house:

            def fill(tx: sqlite3.Connection) -> None:
                rows = [(float(n), "u", "a", "o", "", "ok", "") for n in range(12_001)]
                tx.executemany(
                    "INSERT INTO audit(at, user, action, object, address, result, detail) VALUES(?,?,?,?,?,?,?)", rows
                )

            await house.host.db.write(fill)
            await AccountsKeeper(settings, house.host.auth, house.host.db, clock).sweep()
            assert await house.trail() == []

    asyncio.run(run())


def test_the_trail_is_read_by_person_object_and_time_page_by_page(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        async with open_house(settings_in(tmp_path), clock) as house:
            boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
            first = await house.task(bob)
            clock.step_wall(60)
            second = await house.task(bob)
            await house.ask("POST", f"/api/tasks/{second}/approve", boss)
            whole = await house.get("/api/audit", boss)
            assert [entry["action"] for entry in whole] == ["task.approve", "task.submit", "task.submit"]
            assert whole[0] | {"entry_id": ""} == {
                "entry_id": "",
                "at": "2027-01-15T08:01:00.000Z",
                "user": "ann",
                "action": "task.approve",
                "object": f"task:{second}",
                "address": "127.0.0.1",
                "result": "ok",
                "detail": "",
            }
            assert len(await house.get("/api/audit?user=bob", boss)) == 2
            assert len(await house.get(f"/api/audit?object=task:{second}", boss)) == 2
            assert len(await house.get("/api/audit?since=2027-01-15T08:00:30Z", boss)) == 2
            assert len(await house.get("/api/audit?since=2027-01-15T17:00:30%2B09:00", boss)) == 2
            assert len(await house.get(f"/api/audit?user=bob&object=task:{first}", boss)) == 1
            paged: list[dict[str, str]] = []
            while page := await house.get(
                "/api/audit?limit=1" + (f"&before={paged[-1]['entry_id']}" if paged else ""), boss
            ):
                paged += page
            assert paged == whole
            for wrong in ("since=yesterday", "since=2027-01-15T08:00:30", "limit=0", "before=x"):
                assert (await house.ask("GET", f"/api/audit?{wrong}", boss)).status == 400

    asyncio.run(run())


def test_it_is_exported_as_one_json_object_a_line_oldest_first(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        ids = [await house.task(boss) for _ in range(30)]
        said = await house.ask("GET", "/api/audit/export", boss)
        assert said.status == 200 and said.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in said.body.splitlines()]
        assert [line["object"] for line in lines[:-1]] == [f"task:{task_id}" for task_id in ids]
        assert (lines[-1]["action"], lines[-1]["user"]) == ("audit.export", "ann")
        said = await house.ask("GET", f"/api/audit/export?object=task:{ids[3]}", boss)
        assert len(said.body.splitlines()) == 1

    in_house(tmp_path, work)


def test_what_is_undone_leaves_no_line(tmp_path: Path) -> None:
    """A line stands in the transaction of what it tells of: both are there, or neither is."""

    async def work(house: House) -> None:
        boss, bob = await house.person("ann", Role.ADMIN), await house.person("bob", Role.USER)
        ids = [await house.task(bob), await house.task(boss)]
        before = len(await house.trail())
        assert (await house.ask("POST", "/api/tasks/approve", boss, {"task_ids": ids})).status == 409
        assert (await house.submit(bob, targets=["nowhere"])).status == 400
        assert len(await house.trail()) == before

    in_house(tmp_path, work)
