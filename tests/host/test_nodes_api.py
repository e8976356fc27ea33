"""Nodes, health and metrics over real HTTP, and who may say what about a node."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kohakuriver.model import codec, errors, host_api
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.host_api import Health
from kohakuriver.model.node import Metrics, Node, Sample
from kohakuriver.model.report import Changed, Heartbeat, Report
from kohakuriver.model.route import Route
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Request, Signer, SteadyTime
from tests.host.rig import House, MadeUpRunner, play

METRICS = Metrics(cpu_percent=12.5, memory_total_bytes=8 * 10**9, memory_used_bytes=10**9)


def test_a_node_is_told_as_its_runner_told_it(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        assert await house.get("/api/nodes") == []
        runner = await house.runner("n2", cores=4, gpus=2)
        await house.runner("n1", cores=8, gpus=0)
        await runner.heartbeat(metrics=METRICS, warnings=["its disk is nearly full"])
        first, second = await house.get("/api/nodes")
        assert (first["hostname"], second["hostname"]) == ("n1", "n2"), "by name"
        assert (second["cores"], second["cores_free"], second["gpus_free"], second["url"]) == (4, 4, [0, 1], runner.url)
        assert second["memory_free_bytes"] == 7 * 10**9 and second["metrics"]["cpu_percent"] == 12.5
        assert second["warnings"] == ["its disk is nearly full"] and second["status"] == "online"
        assert codec.decode(Node, second) and await house.get("/api/nodes/n2") == second
        assert await house.refused("GET", "/api/nodes/n3") == (404, "there is no node n3")
        task_id = await house.submit("stay", required_gpus=1, required_memory_bytes=10**9, targets=["n2"])
        await house.becomes(task_id, "running")
        busy = await house.get("/api/nodes/n2")
        assert (busy["gpus_free"], busy["cores_free"], busy["tasks_running"]) == ([1], 3, 1)
        assert busy in await house.get("/api/nodes")

    play(tmp_path, script)


def test_a_draining_node_keeps_what_it_runs_and_gets_nothing_new(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        stays = await house.submit("stay")
        await house.becomes(stays, "running")
        drained = await house.post("/api/nodes/n1/drain", {"reason": "new disk"})
        assert (drained["draining"], drained["drain_reason"]) == (True, "new disk")
        waits = await house.submit("true")

        async def told() -> bool:
            return bool((await house.task(waits))["reason"] == "n1: draining (new disk)")

        await house.until(told, "the reason")
        await runner.register()
        assert (await house.get("/api/nodes/n1"))["draining"], "a runner that joins again stays drained"
        assert (await house.task(stays))["status"] == "running"
        assert not (await house.post("/api/nodes/n1/resume"))["draining"]
        await house.becomes(waits, "completed")
        for verb in ("drain", "resume"):
            assert await house.refused("POST", f"/api/nodes/n9/{verb}") == (404, "there is no node n9")

    play(tmp_path, script)


def test_only_a_silent_node_without_tasks_is_forgotten(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")
        before = await house.rows()
        status, message = await house.refused("DELETE", "/api/nodes/n1")
        assert status == 409 and "stop its runner first" in message and await house.rows() == before
        await house.passes(45)
        await house.becomes(task_id, "lost")
        assert await house.ask("DELETE", "/api/nodes/n1") == (200, {})
        assert await house.get("/api/nodes") == [] and (await house.refused("DELETE", "/api/nodes/n1"))[0] == 404
        with pytest.raises(errors.NotFound):
            await runner.heartbeat()
        await runner.register()
        assert (await house.task(task_id))["status"] == "running", "its runner brings back what it has"

    play(tmp_path, script)


def test_health_has_the_totals_and_a_minute_of_history(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner("n1", cores=4, gpus=2)
        await house.runner("n2", cores=2, gpus=0)
        for first in range(0, 90, 5):
            await runner.heartbeat(samples=[Sample(at=float(at), cpu_percent=1.0) for at in range(first, first + 5)])
        await house.becomes(await house.submit("stay", required_gpus=2, targets=["n1"]), "running")
        told = await house.get("/api/health")
        health = codec.decode(Health, told)
        assert (health.nodes_online, health.nodes_total, health.cores_total, health.cores_free) == (2, 2, 6, 5)
        assert (health.gpus_total, health.gpus_free, health.tasks["running"], health.tasks["lost"]) == (2, 0, 1, 0)
        assert [s.at for s in health.nodes[0].history] == [float(at) for at in range(30, 90)]
        await house.passes(45, runner)
        await house.node_becomes("n2", "offline")
        told = await house.get("/api/health")
        assert (told["nodes_online"], told["nodes_total"], told["cores_total"]) == (1, 2, 4)

    play(tmp_path, script)


def test_warnings_tell_of_skewed_clocks_other_releases_and_strays(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner()
        task_id = await house.submit("prepare")
        await house.becomes(task_id, "assigning")
        await runner.heartbeat(clock=house.clock.now() + 100)
        await house.passes(11)
        told = await house.get("/api/nodes/n1")
        assert round(told["clock_skew_seconds"]) == 100
        assert any("clock is +100s off" in warning for warning in told["warnings"]), told["warnings"]
        await house.passes(130, runner)
        told = await house.get("/api/nodes/n1")
        assert not any("clock" in warning for warning in told["warnings"])
        assert any(f"task {task_id} has been starting for" in warning for warning in told["warnings"]), told["warnings"]

    play(tmp_path, script)


def test_a_live_host_says_ok_and_counts_for_prometheus(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        await house.runner("n1", cores=4)
        await house.becomes(await house.submit("true"), "completed")
        assert await house.ask("GET", "/healthz") == (200, "ok\n")
        status, text = await house.ask("GET", "/metrics")
        assert status == 200 and text.endswith("\n")
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert samples['kohakuriver_tasks{status="completed"}'] == "1"
        assert samples['kohakuriver_node_up{node="n1"}'] == "1" and samples['kohakuriver_node_cores{node="n1"}'] == "4"
        for line in text.splitlines():
            assert re.fullmatch(
                r"# (HELP|TYPE) kohakuriver_\w+ .+|kohakuriver_\w+(\{\w+=\"[^\"\\]*\"\})? -?[\d.e+-]+", line
            ), line

    play(tmp_path, script)


def test_the_table_can_be_read_as_openapi(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        document = await house.get("/api/openapi.json")
        assert document["openapi"] == "3.1.0" and set(document["paths"]) == {route.path for route in host_api.ROUTES}

    play(tmp_path, script)


BAD_REGISTERS: list[tuple[dict[str, Any], str]] = [
    ({"hostname": "../x"}, "hostname: "),
    ({"hostname": ""}, "hostname: "),
    ({"hostname": "x" * 100}, "hostname: longer than"),
    ({"hostname": "a\nb"}, "hostname: "),
    ({"url": "file:///etc/passwd"}, "url: "),
    ({"url": "http://127.0.0.1:99999999"}, "url: "),
    ({"url": "http://a:b:c"}, "url: "),
    ({"url": "http://["}, "url: "),
    ({"machine": {"cores": -1, "memory_bytes": 5}}, "machine.cores: -1 is not between"),
    ({"machine": {"cores": 4, "memory_bytes": -5}}, "machine.memory_bytes: -5 is not between"),
    ({"machine": {"cores": 4, "memory_bytes": 5, "gpus": [{"index": -1, "name": "x"}]}}, "machine.gpus[0].index: -1"),
    ({"clock": -5.0}, "clock: -5.0 is not between"),
    ({"clock": "now"}, "clock: expected a number"),
    ({"report": {"instance": "x", "sequence": -1}}, "report.sequence: -1 is not between"),
    ({"report": {"instance": "x", "sequence": 1, "workloads": [{"task_id": "x"}]}}, "report.workloads[0].task_id: "),
    ({"surprise": 1}, "surprise: unknown field"),
]


def whole_register(hostname: str = "n1") -> dict[str, Any]:
    return {
        "hostname": hostname,
        "url": "http://127.0.0.1:1",
        "version": "1",
        "engine": "x",
        "machine": {"cores": 4, "memory_bytes": 10**9},
        "clock": 1.0,
        "report": {"instance": "x", "sequence": 1},
    }


async def signed(house: House, name: str, method: str, path: str, body: Any) -> tuple[int, Any]:
    """A request signed by hand, which may say things that no runner of ours would."""
    signer, raw = Signer(name, house.secret, SteadyTime()), json.dumps(body).encode()
    for _ in range(2):
        headers, _nonce = signer.sign(Request(method, path, "", raw))
        more = {"data": raw, "headers": headers | {"Content-Type": "application/json"}}
        async with house.http.request(method, house.host.url + path, **more) as answer:  # type: ignore[arg-type]
            told = await answer.json()
        if told.get("error", {}).get("code") != "stale_signature":
            break
        signer.learn(told["error"]["details"]["audience"], told["error"]["details"]["now"])
    return answer.status, told


def test_a_bad_introduction_is_refused_by_field_and_changes_nothing(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        before = await house.rows()
        for change, message in BAD_REGISTERS:
            status, told = await signed(house, "n1", "POST", "/api/nodes/register", whole_register() | change)
            assert status == 400 and told["error"]["message"].startswith(message), (change, told)
            assert await house.rows() == before and await house.get("/api/nodes") == []

    play(tmp_path, script)


def test_a_runner_speaks_only_for_its_own_node(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner("n1")
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")
        before, report = await house.rows(), Report(instance="thief", sequence=9)
        thief = house.peer("n2")
        with pytest.raises(errors.NotAllowed, match="hostname: you are n2, not n1"):
            await thief.call(host_api.NODE_HEARTBEAT, Heartbeat(hostname="n1", clock=1.0, report=report))
        with pytest.raises(errors.NotAllowed):
            await thief.call(host_api.NODE_REPORT, Changed(hostname="n1", report=report))
        status, _ = await signed(house, "n2", "POST", "/api/nodes/register", whole_register("n1"))
        assert status == 403 and await house.rows() == before and runner

    play(tmp_path, script)


def test_a_heartbeat_of_an_unknown_node_sends_it_to_register(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner("n1", joins=False)
        with pytest.raises(errors.NotFound, match="there is no node n1"):
            await runner.heartbeat()
        with pytest.raises(errors.NotFound):
            await runner.change()

    play(tmp_path, script)


def test_a_runner_with_another_secret_is_nobody(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner("n1", joins=False)
        runner.host = Peer(house.http, house.host.url, Signer("n1", bytes(32), SteadyTime()))
        with pytest.raises(errors.NotLoggedIn):
            await runner.register()
        assert await house.get("/api/nodes") == []

    play(tmp_path, script)


# --- every entry of the table, with accounts off ----------------------------------------------------------------------------

AnyRoute = Route[Any, Any]
EXAMPLES: dict[str, Any] = {"task_id": "77", "hostname": "n1", "task_ids": ["77"], "reason": "x", **whole_register()}


def asked_of(route: AnyRoute) -> dict[str, Any]:
    """The least members that a request of this route needs; what cannot be made up makes the walk fail."""
    none = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [f for f in dataclasses.fields(route.takes) if (f.default, f.default_factory) == none]
    return {f.name: EXAMPLES.get(f.name, "1") for f in needed}


async def walk(house: House, route: AnyRoute, runner: MadeUpRunner | None) -> int:
    """The status of a request by a person, or by a runner that is not what the request is about."""
    path, rest = route.split(asked_of(route))
    if runner is not None:
        return (await signed(house, "foreign", route.method, path, rest if route.has_body else None))[0]
    more: dict[str, Any] = (
        {"data": json.dumps(rest), "headers": {"Content-Type": "application/json"}} if route.has_body else {}
    )
    try:
        async with house.http.request(route.method, house.host.url + path, **more) as answer:
            return answer.status
    except aiohttp.ClientPayloadError:
        return 200


def test_every_entry_lets_in_whom_its_role_and_ownership_let_in(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        runner = await house.runner("n1")
        for route in host_api.ROUTES:
            person = await walk(house, route, None)
            if route.needs is Role.NODE:
                assert person == 403, f"{route.name}: no person is ever a node"
            else:
                own_answers = (403, 500) if route.needs is Role.ANONY else (401, 403, 500)  # logging in may fail
                assert person not in own_answers, f"{route.name}: {person}"
        for route in host_api.ROUTES:
            if not route.has_body and route.needs is not Role.ANONY:
                continue
            foreign = await walk(house, route, runner)
            if route.needs is Role.ANONY:
                assert foreign != 500, f"{route.name}: {foreign}"
            elif route.owns is Ownership.NODE:
                assert foreign == 403, route.name
            elif route.needs is Role.NODE:
                assert foreign in (400, 401, 403, 404), f"{route.name}: {foreign}"
            else:
                assert foreign == 403, f"{route.name}: a node is nobody's person"

    play(tmp_path, script)
