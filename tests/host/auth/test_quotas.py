"""A group has no more at once than its limits say, at submit and at placement, and the reason names the limit."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.host.services.gangs import Gangs
from kohakuriver.host.services.node_manager import Demand, NodeResources, place, sum_of
from kohakuriver.host.services.quotas import check_submit, share_out
from kohakuriver.host.store.groups import Held
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.access import Role
from kohakuriver.model.auth_api import Group
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotAllowed, TooMany
from tests.host.auth.house import House, Person, in_house
from tests.host.auth.test_walk import ask_signed

GIB = 2**30


def queued(number: int, owner: str = "bob", *, cores: int = 1, priority: int = 0, **more: Any) -> Queued:
    gpus, memory = str(more.get("gpus", 0)), int(more.get("memory", 0))
    return Queued(Snowflake(number), priority, cores, memory, gpus, None, owner)


def a_node(cores: int = 64, gpus: int = 8) -> dict[str, NodeResources]:
    return {"alpha": NodeResources("alpha", cores, 512 * GIB, gpus=frozenset(range(gpus)))}


def placed(
    queue: list[Queued], groups: list[Group], held: list[Held] | None = None
) -> tuple[list[int], dict[int, str]]:
    """Which tasks are placed on one large node, and what is said to the others."""
    allowance = share_out(groups, held or [])
    made = place(queue, a_node(), {}, quotas=allowance)
    return [int(p.task_id) for p in made], {int(k): v for k, v in allowance.waits.items()}


def vision(**limits: int) -> Group:
    return Group(name="vision", members=["bob", "eve"], **limits)


@pytest.mark.parametrize(
    ("limit", "fields", "word"),
    [
        ({"max_running": 2}, {}, "max_running"),
        ({"max_cores": 8}, {"cores": 4}, "max_cores"),
        ({"max_gpus": 2}, {"gpus": 1}, "max_gpus"),
        ({"max_memory_bytes": 8 * GIB}, {"memory": 4 * GIB}, "max_memory_bytes"),
    ],
)
def test_each_limit_holds_for_all_members_together(limit: dict[str, int], fields: dict[str, int], word: str) -> None:
    queue = [queued(n, owner, **fields) for n, owner in enumerate(["bob", "eve", "bob", "eve", "ann"], start=1)]
    found, waits = placed(queue, [vision(**limit)])
    assert found == [1, 2, 5]
    assert waits.keys() == {3, 4} and all("group vision" in why and word in why for why in waits.values())


def test_what_members_hold_already_counts() -> None:
    held = [Held("eve", 0, 1, 6, 0, "[0]"), Held("ann", 0, 2, 60, 0, "[]")]
    found, waits = placed([queued(3, cores=2), queued(4, cores=1)], [vision(max_cores=8)], held)
    assert found == [3] and "8 cores allowed (max_cores), 8 in use, 1 asked" in waits[4]


def test_a_gang_counts_as_all_its_tasks() -> None:
    nodes = {name: NodeResources(name, 8, GIB) for name in "abc"}
    ids = (Snowflake(1), Snowflake(2), Snowflake(3))
    for limit, count in ((2, 0), (3, 3)):
        allowance = share_out([vision(max_running=limit)], [])
        gang = Gangs(dict.fromkeys(ids, ids))
        assert len(place([queued(n) for n in ids], nodes, {}, quotas=allowance, gangs=gang)) == count
        assert ("2 tasks on nodes allowed (max_running), 0 in use, 3 asked" in str(allowance.waits)) == (count == 0)


def test_in_two_groups_both_limits_hold() -> None:
    both = [Group(name="a", members=["bob"], max_cores=4), Group(name="b", members=["bob", "eve"], max_gpus=1)]
    queue = [queued(1, cores=4), queued(2, gpus=1), queued(3, "eve", gpus=1), queued(4, "eve", gpus=1)]
    found, waits = placed(queue, both)
    assert found == [1, 3] and "group a" in waits[2] and "group b" in waits[4]


def test_a_big_task_of_a_group_is_not_starved_by_its_small_ones() -> None:
    held = [Held("bob", 0, 1, 4, 0, "[]")]
    queue = [queued(2, cores=8), *(queued(n, cores=1) for n in range(3, 9))]
    found, waits = placed(queue, [vision(max_cores=8)], held)
    assert found == [] and "held for task 2" in waits[3]  # 4 are in use; what runs now ends, then 2 has its 8
    found, _ = placed([queued(2, cores=6), *(queued(n, cores=1) for n in range(3, 9))], [vision(max_cores=8)], held)
    assert found == [3, 4]  # 2 leaves over two


def test_a_task_that_its_group_never_has_room_for_holds_nothing() -> None:
    found, waits = placed([queued(1, cores=9), queued(2, cores=8)], [vision(max_cores=8)])
    assert found == [2] and "max_cores" in waits[1]


def test_priority_goes_before_within_a_group() -> None:
    queue = [queued(5, priority=9, cores=8), queued(2, cores=8)]
    assert placed(queue, [vision(max_cores=8)])[0] == [5]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_group_ever_has_more_than_its_limits(data: st.DataObject) -> None:
    draw, owners = data.draw, ["bob", "eve", "ann"]
    limits = st.none() | st.integers(0, 12)
    groups = [
        Group(
            name=f"g{n}",
            members=draw(st.lists(st.sampled_from(owners), unique=True)),
            max_running=draw(limits),
            max_cores=draw(limits),
            max_gpus=draw(limits),
        )
        for n in range(draw(st.integers(0, 3)))
    ]
    queue = [
        queued(n, draw(st.sampled_from(owners)), cores=draw(st.integers(0, 6)), gpus=draw(st.integers(0, 3)))
        for n in range(1, draw(st.integers(0, 15)))
    ]
    allowance = share_out(groups, [])
    made = place(queue, a_node(cores=20, gpus=6), {}, quotas=allowance)
    tasks = {task.task_id: task for task in queue}
    for group in groups:
        mine = [tasks[p.task_id] for p in made if tasks[p.task_id].owner in group.members]
        used = (len(mine), sum(t.cores for t in mine), sum(int(t.gpus) for t in mine))
        for have, limit in zip(used, (group.max_running, group.max_cores, group.max_gpus), strict=True):
            assert limit is None or have <= limit
    if not any(group.members for group in groups):
        assert made == place(queue, a_node(cores=20, gpus=6), {})
    assert not allowance.waits.keys() & {p.task_id for p in made}


async def a_node_joins(house: House, cores: int = 64) -> None:
    """A runner that nobody can reach: what is placed on it stays on its way."""
    body = {
        "hostname": "alpha",
        "url": "http://127.0.0.1:1",
        "version": "1",
        "engine": "fake",
        "machine": {"cores": cores, "memory_bytes": 512 * GIB, "gpus": [{"index": n, "name": "g"} for n in range(8)]},
        "clock": 0.0,
        "report": {"instance": "x", "sequence": 1, "workloads": []},
    }
    assert (await ask_signed(house, "alpha", ("POST", "/api/nodes/register", body))).status == 200


async def statuses(house: House, who: Person, wanted: list[str]) -> list[dict[str, Any]]:
    """The tasks of the cluster, oldest first, once their statuses are as wanted."""
    for _ in range(300):
        found = (await house.get("/api/tasks", who))[::-1]
        if [task["status"] for task in found] == wanted:
            return list(found)
        await asyncio.sleep(0.02)
    raise AssertionError([(task["status"], task["reason"]) for task in found])


def test_a_waiting_task_says_which_quota_it_waits_for(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision", max_cores=8)
        boss = await house.person("ann", Role.ADMIN)
        bob, eve = [await house.person(name, Role.OPERATOR, "vision") for name in ("bob", "eve")]
        await a_node_joins(house)
        await house.task(bob, required_cores=6)
        await house.task(eve, required_cores=4)
        await house.task(boss, required_cores=32)
        found = await statuses(house, boss, ["assigning", "pending", "assigning"])
        assert found[1]["reason"] == "group vision: 8 cores allowed (max_cores), 6 in use, 4 asked"
        said = await house.ask("PUT", "/api/auth/groups/vision", boss, {"max_cores": 10})
        assert said.status == 200 and said.body["members"] == ["bob", "eve"]
        await statuses(house, boss, ["assigning"] * 3)  # more room is used at once

    in_house(tmp_path, work)


def test_many_submits_at_once_never_pass_the_limit_of_waiting_tasks(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision", max_queued=7)
        bob, eve = await house.person("bob", Role.USER, "vision"), await house.person("eve", Role.OPERATOR, "vision")
        ann = await house.person("ann", Role.USER)
        found = await asyncio.gather(*(house.submit(who) for _ in range(10) for who in (bob, eve, ann)))
        counted = [said.status for said in found]
        assert counted.count(202) == 7 + 10 and counted.count(429) == 13
        refused = next(said for said in found if said.status == 429)
        assert "group vision" in refused.message and "max_queued" in refused.message
        boss = await house.person("boss", Role.ADMIN)
        mine = (await house.get("/api/tasks?owner=bob", boss))[0]["task_id"]
        assert (await house.ask("POST", f"/api/tasks/{mine}/kill", boss)).status == 200
        assert (await house.submit(eve)).status == 202

    in_house(tmp_path, work)


def test_several_targets_count_as_several_tasks(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision", max_queued=2)
        bob = await house.person("bob", Role.USER, "vision")
        await a_node_joins(house)
        assert (await house.submit(bob, targets=["alpha"] * 3)).status == 429
        assert await house.get("/api/tasks", bob) == []
        assert (await house.submit(bob, targets=["alpha"] * 2)).status == 202

    in_house(tmp_path, work)


@pytest.mark.parametrize(
    ("limit", "fields"),
    [
        ({"max_cores": 8}, {"required_cores": 9}),
        ({"max_gpus": 1}, {"required_gpus": [0, 1]}),
        ({"max_gpus": 1}, {"targets": ["alpha::0,1"]}),
        ({"max_memory_bytes": GIB}, {"required_memory_bytes": 2 * GIB}),
        ({"max_running": 0}, {}),
    ],
)
def test_what_could_never_run_is_refused_at_once(
    tmp_path: Path, limit: dict[str, int], fields: dict[str, object]
) -> None:
    async def work(house: House) -> None:
        await house.group("vision", **limit)
        bob = await house.person("bob", Role.USER, "vision")
        await a_node_joins(house)
        said = await house.submit(bob, **fields)
        assert said.status == 403 and next(iter(limit)) in said.message and "group vision" in said.message

    in_house(tmp_path, work)


def test_a_gang_that_could_never_run_together_is_refused_at_once(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision", max_running=2, max_queued=4)
        await house.person("bob", Role.USER, "vision")
        two, three = (sum_of([Demand(cores=1)] * count) for count in (2, 3))
        await house.host.db.read(lambda tx: check_submit(tx, "bob", [two, two]))
        with pytest.raises(NotAllowed, match="max_running"):
            await house.host.db.read(lambda tx: check_submit(tx, "bob", [three]))
        with pytest.raises(TooMany, match="max_queued"):
            await house.host.db.read(lambda tx: check_submit(tx, "bob", [two, two, two]))

    in_house(tmp_path, work)


def test_a_group_is_made_changed_and_deleted(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        said = await house.ask("PUT", "/api/auth/groups/vision", boss, {"max_gpus": 4, "max_vps": 2})
        assert (said.body["max_gpus"], said.body["max_vps"], said.body["max_cores"]) == (4, 2, None)
        said = await house.ask("PUT", "/api/auth/groups/vision", boss, {"max_cores": 4})
        assert (said.body["max_gpus"], said.body["max_cores"]) == (None, 4)
        bob = await house.person("bob", Role.USER, "vision")
        said = await house.ask("DELETE", "/api/auth/groups/vision", boss)
        assert said.status == 409 and "bob" in said.message
        path = f"/api/auth/users/{bob.user_id}"
        assert (await house.ask("PATCH", path, boss, {"groups": []})).body["groups"] == []
        assert (await house.ask("DELETE", "/api/auth/groups/vision", boss)).status == 200
        assert (await house.ask("DELETE", "/api/auth/groups/vision", boss)).status == 404
        for wrong in ({"max_gpus": -1}, {"max_gpus": 1.5}, {"max_nothing": 1}):
            assert (await house.ask("PUT", "/api/auth/groups/vision", boss, wrong)).status == 400
        for name in ("Vision", "a b"):
            assert (await house.ask("PUT", f"/api/auth/groups/{name}", boss, {})).status == 400

    in_house(tmp_path, work)


def test_limits_make_a_pass_over_a_long_queue_no_slower() -> None:
    groups = [Group(name=f"g{n}", members=[f"u{m}" for m in range(n, 50, 5)], max_cores=64) for n in range(5)]
    queue = [queued(n, f"u{n % 50}", cores=1 + n % 8, gpus=n % 3) for n in range(1, 10_001)]

    def seconds(limited: list[Group]) -> float:
        nodes = {f"n{n}": NodeResources(f"n{n}", 64, 512 * GIB, gpus=frozenset(range(8))) for n in range(200)}
        began = time.process_time()  # of nothing else that the machine does
        place(queue, nodes, {}, quotas=share_out(limited, []))
        return time.process_time() - began

    spans = [(seconds(groups), seconds([])) for _ in range(7)]
    with_limits, without = (min(column) for column in zip(*spans, strict=True))
    assert with_limits < 1.5 * without
