"""A host whose database was restored from an old copy: what goes on out there is believed, and nothing of it removed."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from tests.host.rig import House, MadeUpRunner, running
from tests.host.test_vps import V, becomes, made
from tests.manual_clock import ManualClock

Part = Callable[[House, MadeUpRunner], Awaitable[None]]


def play(folder: Path, before: Part, between: Part, after: Part) -> None:
    """Three lives of a host with one runner: what happens in the second one is forgotten by the third."""

    async def body() -> None:
        clock, database, copy = ManualClock(), folder / "host/host.db", folder / "copy.db"
        async with asyncio.timeout(60), AsyncExitStack() as outlives:
            async with running(folder, clock) as house:
                runner = await house.runner("alpha", cores=8)
                await before(house, runner)
                await outlives.enter_async_context(house.stack.pop_all())
            shutil.copy(database, copy)
            for part in (between, after):
                async with running(folder, clock) as house:
                    runner.host = house.peer("alpha")
                    await runner.register()
                    await part(house, runner)
                shutil.copy(copy, database)

    asyncio.run(body())


async def stopped_box(house: House) -> str:
    vps = await made(house, name="box")
    await becomes(house, vps, "running")
    await house.post(f"{V}/{vps}/stop")
    await becomes(house, vps, "stopped")
    return vps


async def restarted(house: House, vps: str) -> None:
    await house.post(f"{V}/{vps}/restart")
    await becomes(house, vps, "running", attempt=2)


def test_what_was_started_since_is_taken_up_and_what_is_older_stays_fenced(tmp_path: Path) -> None:
    ids: list[str] = []

    async def before(house: House, runner: MadeUpRunner) -> None:
        ids.append(await stopped_box(house))

    async def between(house: House, runner: MadeUpRunner) -> None:
        await restarted(house, ids[0])
        older = replace(runner.held[int(ids[0]), 2], attempt=1)
        runner.held[int(ids[0]), 1] = older

    async def after(house: House, runner: MadeUpRunner) -> None:
        await runner.heartbeat()
        found = await becomes(house, ids[0], "running", attempt=2)
        assert (found["home"], found["assigned_node"]) == ("alpha", "alpha")
        assert "adopted" in await house.history(ids[0])
        assert (int(ids[0]), 1) not in runner.held, "an older attempt is removed"
        await house.post(f"{V}/{ids[0]}/stop")
        await becomes(house, ids[0], "stopped")

    play(tmp_path, before, between, after)


def test_a_claim_that_this_host_never_made_moves_nothing(tmp_path: Path) -> None:
    ids: list[str] = []

    async def before(house: House, runner: MadeUpRunner) -> None:
        ids.append(await stopped_box(house))

    async def between(house: House, runner: MadeUpRunner) -> None:
        await restarted(house, ids[0])
        key = (int(ids[0]), 2)
        runner.claims[key] = replace(runner.claims[key], proof="0" * 64)

    async def after(house: House, runner: MadeUpRunner) -> None:
        await house.passes(120, runner)
        assert (await house.get(f"{V}/{ids[0]}"))["status"] == "stopped"
        assert (int(ids[0]), 2) in runner.held, "it is shown, and left alone"
        assert [each["attempt"] for each in await house.get("/api/nodes/alpha/orphans")] == [2]

    play(tmp_path, before, between, after)


def test_what_is_unknown_goes_on_until_an_admin_removes_it(tmp_path: Path) -> None:
    async def before(house: House, runner: MadeUpRunner) -> None:
        """Nothing is there yet."""

    async def between(house: House, runner: MadeUpRunner) -> None:
        await becomes(house, await made(house, name="box"), "running")
        done = await house.submit("stay")
        await house.becomes(done, "running")
        runner.end(done, 0)

    async def after(house: House, runner: MadeUpRunner) -> None:
        assert len(runner.held) == 2
        await house.passes(120, runner)
        ((box, _),) = runner.held  # the command is over, and there is nothing of it to keep
        (orphan,) = await house.get("/api/nodes/alpha/orphans")
        told = [orphan[name] for name in ("task_id", "attempt", "state", "task_type", "owner", "name")]
        assert told == [str(box), 1, "running", "vps", "local", "box"]
        assert any("node orphan list alpha" in text for text in (await house.get("/api/nodes/alpha"))["warnings"])
        assert (await house.refused("DELETE", "/api/nodes/alpha/orphans/7"))[0] == 404
        assert (await house.ask("DELETE", f"/api/nodes/alpha/orphans/{box}"))[0] == 200
        assert not runner.held and not runner.kept
        trail = await house.host.db.read(lambda tx: [row[0] for row in tx.execute("SELECT action FROM audit")])
        assert trail[-1] == "node.orphan.remove"
        await runner.heartbeat()
        assert await house.get("/api/nodes/alpha/orphans") == []

    play(tmp_path, before, between, after)
