"""Every entry that changes anything, and the line that it leaves in the trail: done, or not allowed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.host.services.image_work import ImageWork
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NodeUnreachable
from kohakuriver.model.files import Deleted, FileEntry, Kind, TreeStored
from kohakuriver.model.host_api import CHANNELS, ROUTES
from kohakuriver.model.overlay_part import OverlayWish
from kohakuriver.model.report import State, WorkloadState
from kohakuriver.model.route import Entry, Route
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.vps import Snapshot
from kohakuriver.system.docker_environments import EnvironmentContainers, SeenEnvironment
from kohakuriver.system.rooted import Root
from kohakuriver.wire.call import Peer
from tests.host.auth.house import PASSWORD, House, Person, in_house
from tests.host.auth.test_quotas import a_node_joins
from tests.host.auth.test_walk import request_of, things_in, upgrade_for

# What leaves no line of its own, and why.
SILENT = {
    "auth.ticket": "it changes nothing; the socket that it opens is what counts",
    "node.heartbeat": "every five seconds of every node",
    "node.report": "every change of every task, which its own history tells",
    "node.rotate-key": "tried where there is a runner, in the tests of joining",
    "overlay.ip.validate": "it changes nothing",
}
# Requests that need more than the smallest members to go well.
SPECIAL: dict[str, dict[str, object]] = {
    "auth.group.delete": {"group": "empty"},
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
    if route_name.startswith(("docker.", "environment.fs.")):
        more = has_environments(house, [] if route_name == "docker.env.create" else ["lab"])
    if route_name.startswith("environment.fs."):
        more["path"] = "/old" if route_name.endswith(("rename", "delete")) else "/new"
    if route_name.startswith(("fs.", "vps.snapshot.")):
        more = await has_workspace(house, admin)
    if route_name == "node.orphan.remove":
        await a_node_joins(house)
        stray = WorkloadState(task_id=Snowflake(7), attempt=1, state=State.RUNNING)
        house.host.registry.nodes["alpha"].orphans = (stray,)
        more = {"task_id": "7"}
    if route_name.startswith("overlay."):
        more = await has_a_part(house, admin, route_name)
    await house.group("empty")
    return admin, more


class MadeUpContainers:
    """Environments as a daemon would have them."""

    mark = "made up"

    def __init__(self, names: list[str], folder: Path) -> None:
        self.folder = folder
        self._seen = [SeenEnvironment(name=name, image="i", status="running", created_at=0) for name in names]

    async def all(self) -> list[SeenEnvironment]:
        return self._seen

    async def get(self, name: str) -> SeenEnvironment:
        return self._seen[0]

    async def remove(self, name: str) -> None:
        """It is done."""

    start = stop = remove

    async def open_root(self, name: str, writable: bool) -> Root:
        return Root.at(self.folder)


def has_environments(house: House, names: list[str]) -> dict[str, object]:
    """From now on this host has Docker with these environments, and a tarball."""
    work = house.host.environments.work
    inside = work.tarballs.directory.parent / "inside"
    inside.mkdir()
    (inside / "old").write_text("")
    work.containers = cast(EnvironmentContainers, MadeUpContainers(names, inside))
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


async def has_workspace(house: House, admin: Person) -> dict[str, object]:
    """A VPS with its files on a node."""
    await a_node_joins(house)
    vps = await house.vps(admin, lease_seconds=3600, ssh_key_mode="generate")
    await everything_runs(house)
    home = "UPDATE tasks SET document = json_set(document, '$.home', 'alpha')"
    await house.host.db.write(lambda tx: tx.execute(home))
    return {"task_id": vps, "path": "/new"}


FILE = FileEntry(name="new", kind=Kind.FILE, size_bytes=0, mode=0, uid=0, gid=0, modified_at="")
MADE: dict[object, object] = {
    Nothing: Nothing(),
    Snapshot: Snapshot(task_id=Snowflake(1), timestamp=1),
    FileEntry: FILE,
    TreeStored: TreeStored(entries=0, size_bytes=0),
    Deleted: Deleted(entries=1),
}


async def call(self: Peer, route: Route[Any, Any], request: object, timeout_seconds: float = 0.0) -> object:
    """In the place of a runner, which does what it is asked to, and takes no tasks on."""
    if route.gives not in MADE:
        raise NodeUnreachable("it is away")
    return MADE[route.gives]


async def upload(
    self: Peer, route: Route[Any, Any], request: object, chunks: AsyncIterator[bytes], *rest: int
) -> object:
    async for _ in chunks:
        pass
    return MADE[route.gives]


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
]


@pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)
def test_whatever_changes_anything_leaves_a_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: Route[Any, Any]
) -> None:
    monkeypatch.setattr(ImageWork, "connect", nothing)
    monkeypatch.setattr(OverlayNetworkManager, "step", nothing)
    monkeypatch.setattr(Peer, "call", call)
    monkeypatch.setattr(Peer, "upload", upload)

    async def work(house: House) -> None:
        if route.name in SILENT:
            return
        admin, more = await ready(house, route.name)
        things = await things_in(house, "owner")
        members = things.members(route) | {name: value for name, value in more.items() if name in route.field_names}
        if route.name.startswith("vps."):
            if "task_id" in route.path_fields and "task_id" not in more:
                members["task_id"] = await house.vps(admin, lease_seconds=3600, ssh_key_mode="generate")
            if route.name == "vps.assign":
                members["user"] = things.owner.name
            if route.name == "vps.unassign":
                path = f"/api/vps/{members['task_id']}/assignments"
                assert (await house.ask("POST", path, admin, {"user": things.owner.name})).status == 200
        if route.name.startswith("vps.") or route.name in ("task.pause", "task.resume"):
            await everything_runs(house)
        if route.name.startswith("node.") and "hostname" in route.path_fields and not more:
            await a_node_joins(house)
            members["hostname"] = "alpha"
            house.host.registry.nodes["alpha"].online = route.name != "node.delete"
        before = await house.trail()
        path, body = request_of(route, members)
        if route.raw_body:
            url, end_of_tar = house.host.url + path, bytes(1024)
            async with house.http.request(route.method, url, data=end_of_tar, headers=admin.headers) as answer:
                assert answer.status < 300, await answer.text()
        else:
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


def test_a_write_that_fails_is_told_as_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: Peer, *given: object) -> None:
        raise NodeUnreachable("the line broke")

    monkeypatch.setattr(Peer, "call", call)
    monkeypatch.setattr(Peer, "upload", breaks)

    async def work(house: House) -> None:
        admin = await house.person("ann", Role.ADMIN)
        vps = (await has_workspace(house, admin))["task_id"]
        assert (await house.ask("PUT", f"/api/fs/{vps}/write?path=/new", admin)).status == 502
        (line,) = await house.trail(action="fs.write")
        assert (line["user"], line["object"], line["result"]) == ("ann", f"task:{vps}", "failed")

    in_house(tmp_path, work)
