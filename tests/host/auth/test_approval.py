"""A user's task waits for an operator's yes, is shown to him whole, and runs as it was shown."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.host.background.approvals import ApprovalExpiry
from kohakuriver.model.access import Role
from tests.host.auth.house import House, in_house, open_house, settings_in
from tests.manual_clock import ManualClock

EVERYTHING = {
    "command": "python",
    "arguments": ["train.py", "--lr", "$HOME", "a b"],
    "name": "night run",
    "env_vars": {"SEED": "1"},
    "working_dir": "/srv",
    "required_cores": 4,
    "required_gpus": [1, 3],
    "required_memory_bytes": 8_000_000_000,
    "registry_image": "ghcr.io/lab/torch:2",
    "additional_mounts": ["/shared/data:/data:ro"],
    "priority": 7,
    "max_attempts": 3,
    "retry_on": ["loss"],
    "time_limit_seconds": 3600,
}


def test_what_the_approver_sees_is_what_was_asked_for_and_what_goes_on(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user, boss = await house.person("bob", Role.USER), await house.person("ann", Role.OPERATOR)
        task_id = await house.task(user, **EVERYTHING)
        (seen,) = await house.get("/api/tasks/pending-approval", boss)
        assert {name: seen[name] for name in EVERYTHING} == EVERYTHING
        assert (seen["task_id"], seen["status"], seen["owner"]) == (task_id, "pending_approval", "bob")
        said = await house.ask("POST", f"/api/tasks/{task_id}/approve", boss)
        assert said.status == 200
        changed = {name for name in said.body if said.body[name] != seen[name]}
        assert changed == {"status", "approval_status", "approved_by", "approved_at"}
        assert said.body["status"] == "pending" and said.body["approval_status"] == "approved"

    in_house(tmp_path, work)


def test_the_owner_sees_who_decided_when_and_why(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user, boss = await house.person("bob", Role.USER), await house.person("ann", Role.OPERATOR)
        task_id = await house.task(user)
        said = await house.ask("POST", f"/api/tasks/{task_id}/reject", boss, {"reason": "use the small queue"})
        assert said.status == 200
        mine = await house.get(f"/api/tasks/{task_id}", user)
        assert (mine["status"], mine["approved_by"]) == ("rejected", "ann") and mine["approved_at"].endswith("Z")
        assert mine["rejection_reason"] == "use the small queue"
        last = (await house.get(f"/api/tasks/{task_id}/history", user))[-1]
        assert (last["event"], last["by"], last["detail"]) == ("rejected", "ann", "use the small queue")
        assert (await house.ask("POST", f"/api/tasks/{task_id}/approve", boss)).status == 409

    in_house(tmp_path, work)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_who_may_approve_needs_no_approval(tmp_path: Path, role: Role) -> None:
    async def work(house: House) -> None:
        boss = await house.person("ann", role)
        assert (await house.get(f"/api/tasks/{await house.task(boss)}", boss))["status"] == "pending"

    in_house(tmp_path, work)


def test_a_token_of_a_lesser_role_waits_as_that_role_does(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        small = await house.person("ann", Role.ADMIN, token_role=Role.USER)
        task_id = await house.task(small)
        assert (await house.get(f"/api/tasks/{task_id}", small))["status"] == "pending_approval"
        assert (await house.ask("POST", f"/api/tasks/{task_id}/approve", small)).status == 403

    in_house(tmp_path, work)


def test_several_are_decided_at_once_all_or_none(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user, boss = await house.person("bob", Role.USER), await house.person("ann", Role.OPERATOR)
        ids = [await house.task(user) for _ in range(4)]
        running = await house.task(boss)
        said = await house.ask("POST", "/api/tasks/approve", boss, {"task_ids": [*ids, running]})
        assert said.status == 409 and running in said.message
        assert len(await house.get("/api/tasks/pending-approval", boss)) == 4
        said = await house.ask("POST", "/api/tasks/approve", boss, {"task_ids": ids[:2]})
        assert said.status == 200 and [task["status"] for task in said.body] == ["pending"] * 2
        said = await house.ask("POST", "/api/tasks/reject", boss, {"task_ids": ids[2:], "reason": "no"})
        assert [task["rejection_reason"] for task in said.body] == ["no", "no"]
        for wrong in ([], [ids[0], ids[0]], ["1"]):
            said = await house.ask("POST", "/api/tasks/approve", boss, {"task_ids": wrong})
            assert said.status == (404 if wrong == ["1"] else 400)
        assert [e["action"] for e in await house.trail(user="ann")].count("task.approve") == 2

    in_house(tmp_path, work)


def test_two_operators_cannot_decide_one_task_twice(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user = await house.person("bob", Role.USER)
        bosses = [await house.person(f"op{n}", Role.OPERATOR) for n in range(10)]
        task_id = await house.task(user)
        verbs = ["approve", "reject"] * 5
        found = await asyncio.gather(
            *(house.ask("POST", f"/api/tasks/{task_id}/{verb}", boss) for verb, boss in zip(verbs, bosses, strict=True))
        )
        assert sorted(said.status for said in found) == [200] + [409] * 9
        winner = next(said.body for said in found if said.status == 200)
        assert (await house.get(f"/api/tasks/{task_id}", user))["approved_by"] == winner["approved_by"]

    in_house(tmp_path, work)


def test_what_nobody_decides_expires(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(now=1_800_000_000.0)
        settings = settings_in(tmp_path, approval_expire_hours=2)
        async with open_house(settings, clock) as house:
            user, boss = await house.person("bob", Role.USER), await house.person("ann", Role.OPERATOR)
            expiry = ApprovalExpiry(settings, house.host.db, clock)
            early = await house.task(user)
            clock.step_wall(3600)
            late, approved = await house.task(user), await house.task(user)
            await house.ask("POST", f"/api/tasks/{approved}/approve", boss)
            clock.step_wall(3599)
            await expiry.step()
            assert (await house.get(f"/api/tasks/{early}", user))["status"] == "pending_approval"
            clock.step_wall(2)
            await expiry.step()
            gone = await house.get(f"/api/tasks/{early}", user)
            assert (gone["status"], gone["approval_status"], gone["approved_by"]) == ("rejected", "expired", "system")
            assert "2h" in gone["rejection_reason"]
            assert (await house.get(f"/api/tasks/{late}", user))["status"] == "pending_approval"
            assert (await house.get(f"/api/tasks/{approved}", user))["status"] == "pending"

    asyncio.run(run())


def test_a_task_of_a_locked_out_person_cannot_be_approved(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        task_id = await house.task(user)
        await house.ask("PATCH", f"/api/auth/users/{user.user_id}", boss, {"disabled": True})
        said = await house.ask("POST", f"/api/tasks/{task_id}/approve", boss)
        assert said.status == 409 and "bob" in said.message
        assert (await house.ask("POST", f"/api/tasks/{task_id}/reject", boss)).status == 200

    in_house(tmp_path, work)


def test_its_owner_may_take_back_what_waits(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        user = await house.person("bob", Role.USER)
        said = await house.ask("POST", f"/api/tasks/{await house.task(user)}/kill", user)
        assert said.body["status"] == "killed"

    in_house(tmp_path, work)
