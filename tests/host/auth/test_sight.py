"""What one may not know of does not exist: the same words, the same time, the same lists without it."""

import statistics
import time
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from tests.host.auth.house import House, in_house

NEVER = "4611686018427387904"


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


ENTRIES = [
    ("GET", ""),
    ("GET", "/history"),
    ("GET", "/stdout"),
    ("GET", "/stderr"),
    ("POST", "/kill"),
    ("POST", "/pause"),
    ("POST", "/resume"),
]


@pytest.mark.parametrize(("method", "tail"), ENTRIES)
def test_anothers_task_is_told_in_the_words_for_one_that_is_not_there(tmp_path: Path, method: str, tail: str) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        hers = await house.task(eve)
        for _ in range(2):  # the second time nothing may have been remembered, either
            there = await house.ask(method, f"/api/tasks/{hers}{tail}", bob)
            not_there = await house.ask(method, f"/api/tasks/{NEVER}{tail}", bob)
            assert there.status == not_there.status == 404
            assert str(there.body).replace(hers, "ID") == str(not_there.body).replace(NEVER, "ID")
            assert {k for k in there.headers if k != "Date"} == {k for k in not_there.headers if k != "Date"}
            await house.ask(method, f"/api/tasks/{hers}{tail}", eve)  # its owner looks meanwhile

    in_house(tmp_path, work)


def test_and_in_the_same_time(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        hers = await house.task(eve, env_vars={"BIG": "x" * 100_000})

        async def seconds(task_id: str) -> float:
            began = time.perf_counter()
            assert (await house.ask("GET", f"/api/tasks/{task_id}", bob)).status == 404
            return time.perf_counter() - began

        await house.get(f"/api/tasks/{hers}", eve)
        spans = [(await seconds(hers), await seconds(NEVER)) for _ in range(200)]
        there, not_there = (statistics.median(column) for column in zip(*spans, strict=True))
        assert 0.8 < there / not_there < 1.25

    in_house(tmp_path, work)


@pytest.mark.parametrize("what", ["tokens", "sessions"])
def test_anothers_login_is_told_as_one_that_is_not_there(tmp_path: Path, what: str) -> None:
    async def work(house: House) -> None:
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER)
        number = str(eve.token_id)
        if what == "sessions":
            number = (await house.in_browser(eve)).headers["Cookie"].split("_")[2]
        found = [await house.ask("DELETE", f"/api/auth/{what}/{n}", bob) for n in (number, NEVER)]
        assert {said.status for said in found} == {404}
        assert str(found[0].body).replace(number, "ID") == str(found[1].body).replace(NEVER, "ID")

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
