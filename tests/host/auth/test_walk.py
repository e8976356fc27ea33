"""Every entry of the host's table, as everybody who might try it: who may is let in, and nobody else.

Nothing here names a route. What is expected follows from the role and the ownership that the table declares, and an
entry about which that cannot be worked out fails.
"""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.endpoints.access import LOG_IN, LOG_IN_AGAIN
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.host_api import CHANNELS, ROUTES
from kohakuriver.model.route import Channel, Entry, Route
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire.sign import STREAM, Request, Signer, SteadyTime
from tests.host.auth.house import PASSWORD, PUBLIC_KEY, House, Person, Said, in_house

ENTRIES: tuple[Entry, ...] = (*ROUTES, *CHANNELS)
UPGRADE = {"Connection": "Upgrade", "Upgrade": "kohakuriver-stream"}
NODE, FOREIGN_NODE = "alpha", "beta"
REPORT = {"instance": "x", "sequence": 1, "workloads": []}
MACHINE = {"cores": 4, "memory_bytes": 8 * 2**30}
BODY: dict[str, object] = {
    "port": "80",
    "command": "true",
    "username": "newcomer",
    "password": PASSWORD,
    "invitation": "kri_1_wrong",
    "old_password": PASSWORD,
    "new_password": PASSWORD,
    "name": "a-token",
    "path": "/ws/events",
    "target": "/x",
    "role": "viewer",
    "url": "http://127.0.0.1:1",
    "version": "1",
    "engine": "fake",
    "machine": MACHINE,
    "clock": 0.0,
    "report": REPORT,
    "hostname": NODE,
    "user": "newcomer",
    "timestamp": 1,
    "seconds": 3600,
    "runner": NODE,
    "nonce": "0" * 64,
    "token": "e30=",
    "stem": "lab-1700000000",
    "digest": "0" * 64,
    "public_key": PUBLIC_KEY,
}
# Of which thing each field of a path is the name, and what keeps others from it.
OWNED = {
    "task_id": {Ownership.TASK_READ, Ownership.TASK_CONTROL, Ownership.WORKLOAD_USE},
    "timestamp": {Ownership.TASK_CONTROL},  # of a snapshot, which is its VPS's
    "token_id": {Ownership.TOKEN},
    "session_id": {Ownership.SESSION},
    "key_id": {Ownership.KEY},
    "hostname": {Ownership.NODE},
    "runner": {Ownership.NODE},
    "stem": {Ownership.NODE},
}
NOBODYS = {
    "user_id",
    "invitation_id",
    "group",
    "join_id",
    "job_id",
    "name",
}  # of the cluster: operators and admins only

NO_THINGS = {"port"}


@dataclasses.dataclass(frozen=True, slots=True)
class Things:
    """What the entries are about; all of it belongs to `owner`, the node is NODE."""

    owner: Person
    session: Person
    task_id: str
    key_id: int

    def members(self, route: Entry) -> dict[str, object]:
        """A request that is whole, with the smallest members."""
        named = {
            "task_id": self.task_id,
            "task_ids": [self.task_id],
            "token_id": str(self.owner.token_id),
            "session_id": self.session.headers["Cookie"].split("_")[2],
            "key_id": str(self.key_id),
            "user_id": str(self.owner.user_id),
            "invitation_id": "1",
            "join_id": "1",
            "job_id": "1",
            "group": "nobodys",
        }
        fields = dataclasses.fields(route.takes)
        none = (dataclasses.MISSING, dataclasses.MISSING)
        needed = [f.name for f in fields if (f.default, f.default_factory) == none or f.name in route.path_fields]
        return {name: (named | BODY)[name] for name in needed}


async def things_in(house: House, name: str) -> Things:
    owner = await house.person(name, Role.USER)
    return Things(owner, await house.in_browser(owner), await house.task(owner), await house.key(owner))


def request_of(route: Entry, members: dict[str, object]) -> tuple[str, object]:
    """The path (with its query) and the body."""
    path, rest = route.split(members)
    if route.has_body:
        return path, rest
    return path + ("?" + "&".join(f"{k}={v}" for k, v in rest.items()) if rest else ""), None


Make = Callable[[House, Things], Awaitable[Person | None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Somebody:
    """One kind of caller: how he comes to be (or which runner signs), and what he counts as."""

    make: Make | str
    role: Role
    owns: bool = False


async def ask_as(house: House, who: Person | str | None, route: Entry, things: Things) -> Said:
    """Ask as a person, as the runner of that name, or as nobody."""
    path, body = request_of(route, things.members(route))
    if isinstance(who, str):
        return await ask_signed(house, who, (route.method, path, body), route)
    return await house.ask(route.method, path, {**(who.headers if who else {}), **upgrade_for(route)}, body)


def upgrade_for(entry: Entry | None) -> dict[str, str]:
    return UPGRADE if isinstance(entry, Channel) else {}


async def ask_signed(house: House, name: str, request: tuple[str, str, object], entry: Entry | None = None) -> Said:
    """What the runner of that name is told; a signature does not cover a body that streams."""
    streams = isinstance(entry, Route) and entry.raw_body
    secret = load_secret(Path(house.host.settings.cluster_secret_file))
    signer, (method, target, body) = Signer(name, secret, SteadyTime()), request
    path, _, query = target.partition("?")
    data = STREAM if streams else b"" if body is None else json.dumps(body).encode()
    while True:
        headers, _ = signer.sign(Request(method, path, query, data))
        said = await house.ask(method, target, {**headers, **upgrade_for(entry)}, body)
        if said.status != 401 or said.code != "stale_signature":
            return said
        signer.learn(said.body["error"]["details"]["audience"], said.body["error"]["details"]["now"])


def new(role: Role, **changed: Any) -> Make:
    async def make(house: House, things: Things) -> Person:
        return await house.person(f"someone{house.host.ids.next()}", role, **changed)

    return make


async def nobody(house: House, things: Things) -> None:
    return None


async def owner(house: House, things: Things) -> Person:
    return things.owner


async def owner_in_browser(house: House, things: Things) -> Person:
    return things.session


async def admin_in_browser(house: House, things: Things) -> Person:
    return await house.in_browser(await house.person(f"boss{house.host.ids.next()}", Role.ADMIN))


async def with_expired_session(house: House, things: Things) -> Person:
    admin = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    return await house.in_browser(admin, seconds=-1)


async def with_revoked_token(house: House, things: Things) -> Person:
    gone = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    said = await house.ask("DELETE", f"/api/auth/tokens/{gone.token_id}", gone)
    assert said.status == 200
    return gone


async def changed(house: House, change: dict[str, object]) -> Person:
    victim = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    boss = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    said = await house.ask("PATCH", f"/api/auth/users/{victim.user_id}", boss, change)
    assert said.status == 200
    return victim


async def disabled(house: House, things: Things) -> Person:
    return await changed(house, {"disabled": True})


async def demoted(house: House, things: Things) -> Person:
    return await changed(house, {"role": "viewer"})


async def deleted(house: House, things: Things) -> Person:
    victim = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    boss = await house.person(f"boss{house.host.ids.next()}", Role.ADMIN)
    assert (await house.ask("DELETE", f"/api/auth/users/{victim.user_id}", boss)).status == 200
    return victim


async def with_a_made_up_token(house: House, things: Things) -> Person:
    known = things.owner.headers["Authorization"]
    return dataclasses.replace(things.owner, headers={"Authorization": known[:-1] + ("A" if known[-1] != "A" else "B")})


async def with_a_session_as_token(house: House, things: Things) -> Person:
    secret = things.session.headers["Cookie"].partition("=")[2]
    return dataclasses.replace(things.owner, headers={"Authorization": f"Bearer {secret}"})


EVERYBODY = {
    "nobody": Somebody(nobody, Role.ANONY),
    "viewer": Somebody(new(Role.VIEWER), Role.VIEWER),
    "another user": Somebody(new(Role.USER), Role.USER),
    "another user with a viewer's token": Somebody(new(Role.USER, token_role=Role.VIEWER), Role.VIEWER),
    "owner": Somebody(owner, Role.USER, owns=True),
    "owner in a browser": Somebody(owner_in_browser, Role.USER, owns=True),
    "operator": Somebody(new(Role.OPERATOR), Role.OPERATOR),
    "admin": Somebody(new(Role.ADMIN), Role.ADMIN),
    "admin in a browser": Somebody(admin_in_browser, Role.ADMIN),
    "admin with a viewer's token": Somebody(new(Role.ADMIN, token_role=Role.VIEWER), Role.VIEWER),
    "admin who was made viewer": Somebody(demoted, Role.VIEWER),
    "admin whose token was revoked": Somebody(with_revoked_token, Role.ANONY),
    "admin whose session has expired": Somebody(with_expired_session, Role.ANONY),
    "admin who was disabled": Somebody(disabled, Role.ANONY),
    "admin who was deleted": Somebody(deleted, Role.ANONY),
    "somebody with a made-up token": Somebody(with_a_made_up_token, Role.ANONY),
    "somebody with a session as token": Somebody(with_a_session_as_token, Role.ANONY),
    "the runner": Somebody(NODE, Role.NODE, owns=True),
    "another runner": Somebody(FOREIGN_NODE, Role.NODE),
}
NEVER_SEES_ALL = {"another user with a viewer's token"}  # no token sees more than its account


def expected(route: Entry, name: str) -> int:
    """How the edge refuses: 401, 403 or 404; 200 when it lets in."""
    who = EVERYBODY[name]
    if route.needs is Role.ANONY:
        return 200
    if who.role is Role.ANONY:
        return 401
    if Role.NODE in (route.needs, who.role):
        if route.needs is not who.role:
            return 403
        if route.owns is Ownership.JOIN:  # no runner that has a key, nor one with the cluster's secret
            return 403
        assert route.owns is Ownership.NODE, "an entry for runners must be for one runner's own node"
        return 200 if who.owns else 403
    if who.role < route.needs:
        return 403
    return 200 if who.owns or _may_touch_what_is_anothers(route, name) else 404


def _may_touch_what_is_anothers(route: Entry, name: str) -> bool:
    role = EVERYBODY[name].role
    if route.owns is Ownership.NOTHING:
        return True
    if route.owns is Ownership.TASK_READ:
        return role is not Role.USER and name not in NEVER_SEES_ALL
    if route.owns in (Ownership.TASK_CONTROL, Ownership.WORKLOAD_USE):
        return role >= Role.OPERATOR
    assert route.owns in (Ownership.TOKEN, Ownership.SESSION, Ownership.KEY), f"decide who may touch {route.owns}"
    return role is Role.ADMIN


def outcome(said: Said, route: Entry) -> int:
    """What the edge said; 200 when it let in, whatever the entry then made of it."""
    if said.status == 401 and said.message in (LOG_IN, LOG_IN_AGAIN):
        return 401
    if said.status == 403 and said.message.startswith(
        ("this needs the role", "hostname: you are", "this needs a join token")
    ):
        return 403
    if said.status == 404 and route.owns is not Ownership.NOTHING and said.message.startswith("there is no "):
        return 200 if route.owns is Ownership.NODE else 404
    assert said.status < 500 or said.code == "engine_failed", said  # let in, and told that this host has no Docker
    return 200


@pytest.mark.parametrize("name", EVERYBODY)
def test_every_entry_lets_in_exactly_whom_it_should(tmp_path: Path, name: str) -> None:
    somebody = EVERYBODY[name]

    async def work(house: House) -> None:
        await house.person("the-last-admin", Role.ADMIN)
        wrong = []
        fresh = False
        for number, route in enumerate(ENTRIES):
            if not fresh:
                things = await things_in(house, f"owner{number}")
                who = somebody.make if isinstance(somebody.make, str) else await somebody.make(house, things)
            said = await ask_as(house, who, route, things)
            found = outcome(said, route)
            fresh = found != 200 or route.method == "GET"  # else it may have changed anything
            if found != expected(route, name) and not said.message.startswith("a browser opens a socket with a ticket"):
                wrong.append((route.name, said.status, said.body, "wanted", expected(route, name)))
        assert not wrong

    in_house(tmp_path, work)


def left_open(entry: Entry) -> Iterator[str]:
    """What of an entry's things nobody has said whose they are, wherever in the request they are named."""
    by_id = {field for field in OWNED if field.endswith("_id")} & entry.field_names
    is_of_the_cluster = entry.needs in (Role.OPERATOR, Role.ADMIN)
    for field in (entry.path_fields - NO_THINGS) | by_id:
        is_a_node = field in ("hostname", "runner") and entry.method == "GET"  # whoever reads may know the nodes
        if not is_of_the_cluster and not is_a_node and entry.owns not in OWNED.get(field, ()):
            yield field
    if entry.method != "GET" and entry.needs is Role.VIEWER and not entry.path.startswith("/api/auth/"):
        yield "a viewer changes nothing but his own account"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_that_names_a_thing_says_who_may_touch_it(entry: Entry) -> None:
    assert not list(left_open(entry))
    assert entry.path_fields <= OWNED.keys() | NOBODYS | NO_THINGS, "decide what it names"


@dataclasses.dataclass(frozen=True)
class Planted:
    task_id: str = ""
    token_id: str = ""
    plant_id: str = ""


@pytest.mark.parametrize(
    "entry",
    [
        Route("plant", "POST", "/api/plant/{plant_id}", Planted, Planted, Role.USER, "A thing that nobody knows."),
        Route("plant", "GET", "/api/plant/{task_id}", Planted, Planted, Role.VIEWER, "A task of anybody."),
        Route("plant", "POST", "/api/plant", Planted, Planted, Role.USER, "A task, in the body."),
        Route("plant", "GET", "/api/plant", Planted, Planted, Role.ANONY, "A task, for nobody in particular."),
        Route("plant", "POST", "/api/plant", Planted, Planted, Role.USER, "Not a task's.", Ownership.TOKEN),
        Channel("plant", "/ws/plant/{task_id}", Planted, Role.USER, "Into any task."),
        Channel("plant", "/ws/plant", Planted, Role.VIEWER, "Into any task, by the query."),
    ],
    ids=lambda entry: entry.about,
)
def test_an_entry_that_says_nothing_of_its_things_is_found_out(entry: Entry) -> None:
    assert list(left_open(entry))


def test_no_entry_comes_without_a_role() -> None:
    with pytest.raises(TypeError, match="needs"):
        Route("plant", "GET", "/api/plant", Planted, Planted, about="Open.")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs"):
        Channel("plant", "/ws/plant", Planted, about="Open.")  # type: ignore[call-arg]


def test_a_browser_session_changes_nothing_without_the_token_of_our_page(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        things = await things_in(house, "owner")
        admin = await admin_in_browser(house, things)
        for route in ENTRIES:
            path, body = request_of(route, things.members(route))
            for csrf in ({}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": things.session.headers["X-CSRF-Token"]}):
                if route.method != "GET" and route.needs is not Role.ANONY:
                    said = await house.ask(route.method, path, {"Cookie": admin.headers["Cookie"], **csrf}, body)
                    assert said.status == 403 and "X-CSRF-Token" in said.message, (route.name, said)

    in_house(tmp_path, work)


@pytest.mark.parametrize("accounts", [True, False], ids=["with accounts", "without accounts"])
def test_pages_of_other_sites_and_strange_names_are_turned_away(tmp_path: Path, accounts: bool) -> None:
    async def work(house: House) -> None:
        things = await things_in(house, "owner")
        admin = await admin_in_browser(house, things)
        mine = admin.headers if accounts else {}
        for route in ENTRIES:
            path, body = request_of(route, things.members(route))
            said = await house.ask(route.method, path, {**mine, "Origin": "http://evil.example"}, body)
            assert said.status == 403 and "other sites" in said.message, (route.name, said)
            for rebound in ({}, {"Origin": "http://evil.example:8000"}):
                headers = {**mine, "Host": "evil.example:8000", **rebound}
                said = await house.ask(route.method, path, headers, body)
                assert said.status == 403 and "evil.example" in said.message, (route.name, said)

    in_house(tmp_path, work, auth_enabled=accounts)


def test_an_entry_that_is_not_there_says_the_same_to_everybody(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        admin = await house.person("ann", Role.ADMIN)
        for path in ("/api/nothing", "/api/tasks/1/nothing", "/", "/api/auth"):
            found = [await house.ask("GET", path, who) for who in (None, admin)]
            assert found[0].status == found[1].status == 404 and found[0].body == found[1].body

    in_house(tmp_path, work)


def test_a_burst_of_signed_requests_by_runners_leaves_people_alone(tmp_path: Path) -> None:
    """A runner is no person: it reads neither tasks nor nodes, whatever key it holds."""

    async def work(house: House) -> None:
        paths = ("/api/tasks", "/api/nodes", "/api/health", "/api/auth/me", "/api/audit")
        found = await asyncio.gather(*(ask_signed(house, NODE, ("GET", path, None)) for path in paths))
        assert {said.status for said in found} == {403}

    in_house(tmp_path, work)
