"""Tasks over real HTTP: submitted, listed, steered, read; and everything that is refused changes nothing."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kohakuriver.host.services.task_scheduler import Outbox
from kohakuriver.host.store import tasks as rows
from kohakuriver.model import codec
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.task import Task
from kohakuriver.model.units import unix_seconds
from tests.host.rig import House, ids, play, running


def test_a_task_goes_in_and_its_end_comes_out(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        good, bad = await house.submit("true", name="mine", required_gpus=1), await house.submit("false")
        done = await house.becomes(good, "completed", "failed")
        assert (done["exit_code"], done["assigned_node"], done["attempt"], done["assigned_gpus"]) == (0, "n1", 1, [0])
        assert (
            done["name"] == "mine" and done["owner"] == "local" and done["reason"] is None and done["stdout_bytes"] == 5
        )
        times = [done[name] for name in ("submitted_at", "started_at", "completed_at")]
        assert times == sorted(times) and all(unix_seconds(at) > 0 for at in times)
        assert (await house.becomes(bad, "failed"))["exit_code"] == 3
        assert await house.history(good) == ["submitted", "placed", "exited_ok"]
        assert runner.executed == [(int(good), 1), (int(bad), 1)]
        assert codec.decode(Task, done).status is Status.COMPLETED, "the answer is the declared type"

        async def forgotten() -> bool:
            return not runner.held

        await house.until(forgotten, "the runner to be told that the ends are stored")

    play(tmp_path, script)


def test_nothing_is_remembered_of_what_is_over(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner(cores=16)
        made = [await house.submit(word, max_attempts=2) for word in ("true", "false", "stay", "refuse") * 8]
        for task_id in made[2::4]:
            await house.becomes(task_id, "running")
            await house.post(f"/api/tasks/{task_id}/kill")
        for task_id in made:
            await house.becomes(task_id, "completed", "failed", "killed")
        await house.passes(120, runner)
        left = [name for name in Outbox.__slots__ if name != "since" and getattr(house.host.scheduler.outbox, name)]
        assert not left and not runner.held and not house.host.registry.nodes["n1"].output_bytes

    play(tmp_path, script)


def test_several_targets_make_one_task_each_or_none(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner("n1"), await house.runner("n2")
        made = await house.post("/api/tasks", {"command": "stay", "targets": ["n2", "n1:0::1", "n2::0"]})
        assert made["batch_id"] == made["task_ids"][0] and len(set(made["task_ids"])) == 3
        found = [await house.becomes(task_id, "running") for task_id in made["task_ids"]]
        assert [(t["assigned_node"], t["assigned_gpus"], t["assigned_numa"], t["target"]) for t in found] == [
            ("n2", [], None, "n2"), ("n1", [1], 0, "n1:0::1"), ("n2", [0], None, "n2::0"),
        ]  # fmt: skip
        assert {t["batch_id"] for t in found} == {made["batch_id"]}
        before = await house.rows()
        told = await house.refused("POST", "/api/tasks", {"command": "true", "targets": ["n1", "nowhere"]})
        assert told[0] in (400, 404) and told[1].startswith("targets[1]: ") and "nowhere" in told[1]
        assert await house.rows() == before

    play(tmp_path, script)


def test_the_same_key_again_is_the_same_task_and_another_request_is_refused(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        request = {"command": "true", "arguments": ["a"], "idempotency_key": "k-1"}
        first, *others = await asyncio.gather(*(house.post("/api/tasks", request) for _ in range(10)))
        assert all(other == first for other in others)
        before = await house.rows()
        status, message = await house.refused("POST", "/api/tasks", request | {"arguments": ["b"]})
        assert status == 409 and message.startswith("idempotency_key: ")
        assert await house.rows() == before
        assert await house.post("/api/tasks", request | {"idempotency_key": "k-2"}) != first
        assert len(await house.get("/api/tasks")) == 2

    play(tmp_path, script)


def test_lists_go_newest_first_page_by_page_and_by_filter(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner("n1", cores=2)
        made = [int(await house.submit("stay", required_cores=1)) for _ in range(5)]
        for task_id in made[:2]:
            await house.becomes(str(task_id), "running")
        assert ids(await house.get("/api/tasks")) == made[::-1]
        page = ids(await house.get("/api/tasks?limit=2"))
        while len(page) < 5:
            page += ids(await house.get(f"/api/tasks?limit=2&before={page[-1]}"))
        assert page == made[::-1]
        assert ids(await house.get(f"/api/tasks?before={made[0]}")) == []
        assert ids(await house.get("/api/tasks?status=running&node=n1&owner=local")) == made[1::-1]
        assert ids(await house.get("/api/tasks?status=pending")) == made[:1:-1]
        assert ids(await house.get("/api/tasks?owner=nobody")) == ids(await house.get("/api/tasks?node=n2")) == []
        assert ids(await house.get("/api/tasks/my?limit=1")) == made[4:]
        assert await house.get("/api/tasks/pending-approval") == []
        waits = (await house.get("/api/tasks?status=pending"))[0]
        assert waits["reason"] == "n1: 1 cores asked, 0 free"

    play(tmp_path, script)


def test_why_a_task_waits_is_told_node_by_node(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        task_id = await house.submit("true", required_cores=3)
        assert (await house.task(task_id))["reason"] == "no node is registered"
        await house.runner("beta", cores=2), await house.runner("alpha", cores=2)

        async def told(reason: str) -> None:
            async def look() -> bool:
                return bool((await house.task(task_id))["reason"] == reason)

            await house.until(look, reason)

        await house.passes(2)
        await told("no registered node can ever run it\nalpha: 3 cores asked, it has 2\nbeta: 3 cores asked, it has 2")
        await house.runner("gamma", cores=8)
        assert (await house.becomes(task_id, "completed"))["assigned_node"] == "gamma"

    play(tmp_path, script)


def test_killing_is_at_once_where_nobody_runs_it_and_true_when_it_says_so(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        waits = await house.submit("stay", required_cores=4)
        assert (await house.post(f"/api/tasks/{waits}/kill"))["status"] == "killed"
        runner = await house.runner()
        task_id = await house.submit("stay", required_cores=4)
        await house.becomes(task_id, "running")
        runner.talks = False
        asked = await house.post(f"/api/tasks/{task_id}/kill")
        assert (asked["status"], asked["desired"]) == ("running", "kill"), "not killed before it is true"

        async def ordered() -> bool:
            return len(runner.orders) == 2

        await house.until(ordered, "the order to arrive")
        assert (await house.task(task_id))["status"] == "running"
        await runner.heartbeat()
        done = await house.task(task_id)
        assert (done["status"], done["signal"]) == ("killed", 15) and done["completed_at"]
        assert await house.history(task_id) == ["submitted", "placed", "started", "asked to kill", "killed"]
        for verb in ("kill", "pause", "resume"):
            assert (await house.refused("POST", f"/api/tasks/{task_id}/{verb}"))[0] == 409

    play(tmp_path, script)


def test_a_task_that_is_being_started_can_be_killed(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner()
        task_id = await house.submit("prepare")

        async def sent() -> bool:
            return await house.history(task_id) == ["submitted", "placed"]

        await house.until(sent)
        await house.post(f"/api/tasks/{task_id}/kill")
        assert (await house.becomes(task_id, "killed"))["attempt"] == 1

    play(tmp_path, script)


def test_pausing_and_resuming_come_true_when_the_runner_says_so(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")
        await house.post(f"/api/tasks/{task_id}/pause")
        await house.becomes(task_id, "paused")
        assert (await house.get("/api/nodes/n1"))["cores_free"] == 3, "a paused task keeps what it has"
        await house.post(f"/api/tasks/{task_id}/resume")
        await house.becomes(task_id, "running")
        runner.end(task_id, 0)
        await runner.change()
        assert (await house.task(task_id))["status"] == "completed"
        events = await house.history(task_id)
        assert events == [
            "submitted",
            "placed",
            "started",
            "asked to pause",
            "paused",
            "asked to run",
            "resumed",
            "exited_ok",
        ]
        pending = await house.submit("stay", required_cores=99)
        status, message = await house.refused("POST", f"/api/tasks/{pending}/pause")
        assert status == 409 and "only a running or paused one" in message

    play(tmp_path, script)


async def waiting_for_approval(house: House) -> str:
    task_id = house.host.ids.next()
    task = Task(
        task_id=task_id,
        batch_id=task_id,
        owner="ann",
        command="true",
        status=Status.PENDING_APPROVAL,
        approval_status="pending",
        submitted_at="2030-01-01T00:00:00.000Z",
    )
    await house.host.db.write(lambda tx: rows.insert(tx, task, "ann"))
    return str(task_id)


def test_what_waits_for_a_yes_runs_when_approved_and_never_when_rejected(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner()
        yes, no = await waiting_for_approval(house), await waiting_for_approval(house)
        await house.passes(2)
        assert ids(await house.get("/api/tasks/pending-approval")) == [int(no), int(yes)]
        assert (await house.post(f"/api/tasks/{yes}/approve"))["approval_status"] == "approved"
        done = await house.becomes(yes, "completed")
        assert (done["approved_by"], done["owner"]) == ("local", "ann") and done["approved_at"]
        rejected = await house.post(f"/api/tasks/{no}/reject", {"reason": "too big"})
        assert (rejected["status"], rejected["rejection_reason"]) == ("rejected", "too big")
        for task_id, verb in ((yes, "approve"), (no, "approve"), (no, "reject"), (yes, "reject"), (no, "kill")):
            assert (await house.refused("POST", f"/api/tasks/{task_id}/{verb}"))[0] == 409
        assert await house.history(no) == ["submitted", "rejected"]

    play(tmp_path, script)


def test_output_is_relayed_byte_by_byte_from_the_runner_that_has_it(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")
        whole = runner.output[int(task_id), 1] = bytes(range(256)) * 10
        for query, wanted in (
            ("", whole),
            ("?offset=100", whole[100:]),
            ("?follow=true", whole),
            ("?attempt=1", whole),
        ):
            async with house.http.get(f"{house.host.url}/api/tasks/{task_id}/stdout{query}") as answer:
                assert (answer.status, await answer.read()) == (200, wanted)
                assert answer.content_type == "application/octet-stream"
        for path, status in (
            ("stdout?attempt=2", 404),
            ("stderr?attempt=9", 404),
            ("stdout?offset=-1", 400),
            ("stdout?lines=x", 400),
        ):
            assert (await house.refused("GET", f"/api/tasks/{task_id}/{path}"))[0] == status
        assert (await house.refused("GET", "/api/tasks/999/stdout"))[0] == 404
        pending = await house.submit("stay", required_cores=99)
        assert (await house.ask("GET", f"/api/tasks/{pending}/stdout"))[0] == 200, "nothing yet is nothing"

    play(tmp_path, script)


def test_output_of_a_node_that_is_away_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("true")
        await house.becomes(task_id, "completed")
        await house.passes(45)
        await house.node_becomes("n1", "offline")
        status, message = await house.refused("GET", f"/api/tasks/{task_id}/stdout")
        assert status == 502 and "n1" in message and runner

    play(tmp_path, script)


def test_following_a_task_that_waits_begins_when_it_does_and_ends_with_the_reader(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        task_id = await house.submit("stay")
        reading = asyncio.ensure_future(house.http.get(f"{house.host.url}/api/tasks/{task_id}/stdout?follow=true"))
        await asyncio.sleep(0.05)
        assert not reading.done()
        reading.cancel()
        runner = await house.runner()
        await house.becomes(task_id, "running")
        runner.output[int(task_id), 1] = b"hello"
        async with house.http.get(f"{house.host.url}/api/tasks/{task_id}/stdout?follow=true") as answer:
            assert await answer.read() == b"hello"

    play(tmp_path, script)


def test_output_that_breaks_in_the_middle_is_cut_and_not_ended(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")

        class Breaks(bytes):
            def __getitem__(self, at: Any) -> Any:
                if at.start > 30:
                    raise OSError("the disk broke")
                return super().__getitem__(at)

        runner.output[int(task_id), 1] = Breaks(b"x" * 1000)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with house.http.get(f"{house.host.url}/api/tasks/{task_id}/stdout") as answer:
                await answer.read()

    play(tmp_path, script)


BAD: list[tuple[Any, str]] = [
    ('{"command":', "body: "),
    ("[" * 50_000, "body: nested too deeply"),
    ('{"command":"a","command":"b"}', "command: given twice"),
    ('{"command":"a","priority":NaN}', "priority: expected a whole number, got NaN"),
    ({}, "command: required"),
    ({"command": ["ls"]}, "command: expected text"),
    ({"command": "a", "arguments": "b"}, "arguments: expected a list"),
    ({"command": "a", "surprise": 1}, "surprise: unknown field"),
    ({"command": "a", "required_memory_bytes": "8 Gigs"}, "required_memory_bytes: expected a whole number"),
    ({"command": "a", "required_memory_bytes": -1}, "required_memory_bytes: -1 is not between"),
    ({"command": "a", "required_cores": -1}, "required_cores: -1 is not between"),
    ({"command": "a", "required_gpus": [-1]}, "required_gpus[0]: -1 is not between"),
    ({"command": "a", "targets": ["nowhere"]}, "targets[0]: "),
    ({"command": "a", "targets": ["../../etc"]}, "targets[0]: "),
    ({"command": "a", "name": "../x\0y"}, "name: must not hold a NUL"),
    ({"command": "a", "name": "x\ny"}, "name: "),
    ({"command": "a", "name": "n" * 10_000}, "name: longer than"),
    ({"command": "c" * 1_000_000}, "body: larger than"),
    ({"command": "c" * 999_000}, "command: longer than"),
    ({"command": "a", "working_dir": "../.."}, "working_dir: "),
    ({"command": "a", "env_vars": {"A=B": "1"}}, "env_vars: "),
    ({"command": "a", "env_vars": {"A": 1}}, "env_vars.A: expected text"),
    ({"command": "a", "privileged": True}, "privileged: "),
    ({"command": "a", "max_attempts": 0}, "max_attempts: 0 is not between"),
    ({"command": "a", "time_limit_seconds": 0}, "time_limit_seconds: 0 is not between"),
    ({"command": "a", "idempotency_key": ""}, "idempotency_key: must not be empty"),
    ("x" * 2_000_000, "body: larger than"),
]


def test_bad_submits_are_refused_by_field_and_change_nothing(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner()
        before = await house.rows()
        for body, message in BAD:
            status, told = await house.refused("POST", "/api/tasks", body)
            assert 400 <= status < 500 and told.startswith(message), (str(body)[:80], status, told)
            assert await house.rows() == before, str(body)[:80]

    play(tmp_path, script)


BAD_PATHS = ["abc", "-1", "0", "1.5", "99999999999999999999", "1%00", "1%0a", "%2e%2e%2f1", "1" * 4000]


def test_ids_that_are_not_numbers_and_tasks_that_are_not_there_are_refused(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        before = await house.rows()
        for rest, method in (
            ("", "GET"),
            ("/kill", "POST"),
            ("/pause", "POST"),
            ("/history", "GET"),
            ("/stdout", "GET"),
        ):
            for name in BAD_PATHS:
                status, told = await house.refused(method, f"/api/tasks/{name}{rest}")
                assert (status == 400 and told.startswith("task_id: ")) or (status == 404 and "%2" in name), (
                    name,
                    told,
                )
            assert await house.refused(method, f"/api/tasks/77{rest}") == (404, "there is no task 77")
        assert await house.rows() == before

    play(tmp_path, script)


BAD_LISTS = [
    "limit=0",
    "limit=1001",
    "limit=x",
    "before=0",
    "before=x",
    "status=lucky",
    "node=../x",
    "owner=" + "x" * 65,
    "page=2",
]


def test_bad_queries_are_refused_by_field(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        for query in BAD_LISTS:
            status, told = await house.refused("GET", f"/api/tasks?{query}")
            assert status == 400 and told.startswith(query.partition("=")[0] + ": "), told
        assert await house.get("/api/tasks/pending-approval?status=running") == []

    play(tmp_path, script)


def test_a_full_store_is_said_and_nothing_is_answered_that_is_not_kept(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        used = await house.host.db.read(lambda tx: tx.execute("PRAGMA page_count").fetchone()[0])
        await house.host.db.write(lambda tx: tx.execute(f"PRAGMA max_page_count={used + 2}").fetchall())
        kept, refused = [], 0
        for _ in range(30):
            status, body = await house.ask("POST", "/api/tasks", {"command": "x" * 2000})
            if status == 202:
                kept.append(int(body["task_ids"][0]))
            else:
                assert status == 507 and "nothing was changed" in body["error"]["message"]
                refused += 1
        assert refused and ids(await house.get("/api/tasks")) == kept[::-1]
        await house.host.db.write(lambda tx: tx.execute("PRAGMA max_page_count=1000000").fetchall())
        kept.append(int(await house.submit("true")))
        assert ids(await house.get("/api/tasks")) == kept[::-1], "and it goes on by itself"

    play(tmp_path, script)


def test_two_hosts_live_in_one_process(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        (tmp_path / "other").mkdir()
        async with running(tmp_path / "other") as other:
            assert house.host.url != other.host.url and house.host.cluster_id != other.host.cluster_id
            task_id = await house.submit("true")
            assert (await other.refused("GET", f"/api/tasks/{task_id}"))[0] == 404

    play(tmp_path, script)
