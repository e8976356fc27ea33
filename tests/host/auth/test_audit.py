"""The trail: whatever changes anything leaves a line, and no line ever changes."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from kohakuriver.host.background.accounts import AccountsKeeper
from kohakuriver.model.access import Role
from kohakuriver.model.errors import StoreUnavailable
from tests.host.auth.house import House, in_house, open_house, settings_in
from tests.manual_clock import ManualClock


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
