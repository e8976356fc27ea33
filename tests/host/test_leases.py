"""Leases and idle stops: never without being configured, never unannounced, never while somebody is in it."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.services.leases import judge
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.report import State
from kohakuriver.model.runner_vps_api import TellInside
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import Vps
from kohakuriver.model.vps_api import VpsId
from tests.host.rig import House, MadeUpRunner, play
from tests.host.test_vps import V, becomes, made

NOW = 1_764_000_000.0


def vps(**changes: Any) -> Vps:
    facts: dict[str, Any] = {"task_id": Snowflake(1), "batch_id": Snowflake(1), "owner": "ada", "command": "sh"}
    return Vps(**facts, name="box", status=Status.RUNNING, submitted_at=rfc3339(NOW), **changes)


@pytest.mark.parametrize(
    ("changes", "idle", "said"),
    [
        ({}, 10**9, ""),
        ({"lease_seconds": 3600, "expires_at": rfc3339(NOW + 601)}, None, ""),
        ({"lease_seconds": 3600, "expires_at": rfc3339(NOW + 599)}, None, "it will be stopped in 9m59s: the end of"),
        ({"lease_seconds": 60, "expires_at": rfc3339(NOW + 31)}, None, ""),
        ({"lease_seconds": 60, "expires_at": rfc3339(NOW + 30)}, None, "it will be stopped in 30s"),
        ({"lease_seconds": 60, "expires_at": rfc3339(NOW)}, None, "STOP the end of its lease of 1m00s"),
        ({"idle_stop_seconds": 7200}, None, ""),
        ({"idle_stop_seconds": 7200}, 6599.0, ""),
        ({"idle_stop_seconds": 7200}, 6601.0, "it will be stopped in 9m59s: nobody was in it"),
        ({"idle_stop_seconds": 7200}, 7200.0, "STOP nobody was in it and nothing worked in it for 2h00m"),
    ],
)
def test_what_is_due_follows_from_lease_and_idleness(changes: dict[str, Any], idle: float | None, said: str) -> None:
    verdict = judge(vps(**changes), idle, NOW)
    assert (f"STOP {verdict.why}" if verdict.why else verdict.notice).startswith(said)
    assert bool(said) == bool(verdict.why or verdict.notice)


async def passes(house: House, seconds: float, runner: MadeUpRunner, busy: bool | None = None) -> None:
    """Time passes, during which the runner says of all it has whether something works there."""
    while seconds > 0:
        for key, state in list(runner.held.items()):
            if state.state is State.RUNNING:
                runner.busy_with(key, busy)
        await house.passes(min(20.0, seconds), runner)
        seconds -= 20.0


def test_a_lease_ends_after_a_warning_unless_it_is_extended(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner()
        ends, free = (
            await made(house, name="ends", lease_seconds=60, required_cores=1),
            await made(house, required_cores=1),
        )
        for each in (ends, free):
            await becomes(house, each, "running")
        assert (await house.get(f"{V}/{ends}"))["notice"] is None
        await house.passes(40, alpha)
        notice = (await house.get(f"{V}/{ends}"))["notice"]
        assert notice.startswith("it will be stopped in ") and "kohakuriver vps extend ends 2h" in notice
        said = [each for each in alpha.orders if isinstance(each, TellInside)]
        assert [(str(each.task_id), each.attempt) for each in said] == [(ends, 1)], "once, and to nobody else"
        assert "kohakuriver vps extend ends 2h" in said[0].text
        extended = await house.post(f"{V}/{ends}/extend", {"seconds": 100})
        assert extended["notice"] is None
        await house.passes(60, alpha)
        assert (await house.get(f"{V}/{ends}"))["status"] == "running"
        await house.passes(55, alpha)
        found = await becomes(house, ends, "stopped")
        assert found["expires_at"] is None
        assert "asked to stop: the end of its lease of 1m00s" in await house.history(ends)
        assert (await house.get(f"{V}/{free}"))["status"] == "running"
        assert (await house.refused("POST", f"{V}/{free}/extend", {"seconds": 60}))[0] == 409
        await house.post(f"{V}/{ends}/restart")
        await becomes(house, ends, "running", attempt=2)
        await house.passes(20, alpha)
        assert (await house.get(f"{V}/{ends}"))["status"] == "running", "its lease began anew"

    play(tmp_path, work)


def test_what_nobody_uses_is_stopped_and_what_works_or_is_not_known_goes_on(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner()
        idle = await made(house, name="idle", idle_stop_seconds=60)
        await becomes(house, idle, "running")
        for busy in (True, None):
            await passes(house, 80, alpha, busy)
            assert (await house.get(f"{V}/{idle}"))["status"] == "running"
        await passes(house, 50, alpha, False)
        found = await house.get(f"{V}/{idle}")
        assert found["status"] == "running" and "nobody was in it" in found["notice"] and found["idle_seconds"] >= 30
        caller = Caller("ada", Role.ADMIN)
        with house.host.auth.uses.watch(
            caller, Ownership.WORKLOAD_USE, VpsId(task_id=Snowflake(int(idle))), lambda: None
        ):
            await passes(house, 80, alpha, False)
            assert (await house.get(f"{V}/{idle}"))["status"] == "running", "somebody is in it"
        await passes(house, 80, alpha, False)
        await becomes(house, idle, "stopped")

    play(tmp_path, work)
