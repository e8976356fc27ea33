"""What one may not know of does not exist: the same words, the same time, the same lists without it."""

import statistics
import time
from pathlib import Path

from kohakuriver.model.access import Ownership, Role
from tests.host.auth.house import House, in_house
from tests.host.auth.test_walk import ENTRIES, request_of, things_in, upgrade_for

NEVER = "4611686018427387904"
VARYING = ("Date", "Content-Length")


def test_lists_hold_what_one_may_see(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        people = {role: await house.person(role.label, role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)}
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        mine, hers = await house.task(bob), await house.task(eve)
        assert [task["task_id"] for task in await house.get("/api/tasks", bob)] == [mine]
        assert [task["task_id"] for task in await house.get("/api/tasks?owner=bob", bob)] == [mine]
        assert await house.get("/api/tasks?owner=eve", bob) == []
        assert await house.get("/api/tasks?owner=nobody", bob) == []
        for who in people.values():
            assert [task["task_id"] for task in await house.get("/api/tasks", who)] == [hers, mine]
            assert [task["task_id"] for task in await house.get("/api/tasks?owner=eve", who)] == [hers]
            assert await house.get("/api/tasks/my", who) == []
        assert [task["task_id"] for task in await house.get("/api/tasks/my", eve)] == [hers]

    in_house(tmp_path, work)


NAMED_BY = {
    Ownership.TASK_READ: "task_id",
    Ownership.TASK_CONTROL: "task_id",
    Ownership.WORKLOAD_USE: "task_id",
    Ownership.TOKEN: "token_id",
    Ownership.SESSION: "session_id",
    Ownership.KEY: "key_id",
}


def test_what_is_anothers_is_told_in_the_words_for_what_is_not_there(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, hers = await house.person("bob", Role.USER), await things_in(house, "eve")
        for entry in (each for each in ENTRIES if each.owns in NAMED_BY and each.needs <= Role.USER):
            members, field = hers.members(entry), NAMED_BY[entry.owns]
            for _ in range(2):  # the second time nothing may have been remembered, either
                said = []
                for number in (str(members[field]), NEVER):
                    path, body = request_of(entry, {**members, field: number})
                    told = await house.ask(entry.method, path, {**bob.headers, **upgrade_for(entry)}, body)
                    headers = {name: value for name, value in told.headers.items() if name not in VARYING}
                    said.append((told.status, str(told.body).replace(number, "ID"), headers))
                assert said[0] == said[1] and said[0][0] == 404, (entry.name, said)
                looked = f"/api/tasks/{hers.task_id}"  # its owner looks meanwhile
                assert (await house.ask("GET", looked, hers.owner)).status == 200

    in_house(tmp_path, work)


def test_and_in_the_same_time(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        hers = await house.task(eve, env_vars={"BIG": "x" * 100_000})

        async def seconds(task_id: str) -> float:
            began = time.process_time()  # of nothing else that the machine does
            assert (await house.ask("GET", f"/api/tasks/{task_id}", bob)).status == 404
            return time.process_time() - began

        await house.get(f"/api/tasks/{hers}", eve)
        ratios = []
        for _ in range(5):  # what gives it away does so each time; a busy machine does not
            spans = [(await seconds(hers), await seconds(NEVER)) for _ in range(60)]
            there, not_there = (statistics.median(column) for column in zip(*spans, strict=True))
            ratios.append(there / not_there)
        assert any(0.8 < ratio < 1.25 for ratio in ratios), ratios

    in_house(tmp_path, work)


def test_a_user_sees_the_groups_he_is_in(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        for name in ("audio", "vision"):
            await house.group(name, max_gpus=4)
        bob = await house.person("bob", Role.USER, "vision")
        looker, boss = await house.person("v", Role.VIEWER), await house.person("ann", Role.ADMIN)
        (mine,) = await house.get("/api/auth/groups", bob)
        assert (mine["name"], mine["members"], mine["max_gpus"], mine["max_cores"]) == ("vision", ["bob"], 4, None)
        for who in (looker, boss):
            assert [group["name"] for group in await house.get("/api/auth/groups", who)] == ["audio", "vision"]

    in_house(tmp_path, work)
