"""A runner's key becomes another one while it works, whoever is killed at whatever moment."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.auth.runner_keys import RunnerKeys
from kohakuriver.host.store import runner_keys
from kohakuriver.model import runner_api, runner_key_api
from kohakuriver.model.errors import NotLoggedIn, RiverError
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import joining as machine
from kohakuriver.runner import membership
from kohakuriver.runner.app import running_runner
from kohakuriver.runner.host_keys import HostKeys
from kohakuriver.runner.state import Runner
from kohakuriver.system.clock import SystemClock
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.fake_engine import FakeEngine, FakeNode
from tests.host.joining.machines import Lab, in_lab, open_lab, settings_in
from tests.ports import free_port
from tests.runner.stage import BigMachine

SECONDS = 30.0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def runner_settings(lab: Lab, folder: Path, port: int) -> RunnerSettings:
    return RunnerSettings(
        runner_hostname="alpha",
        runner_port=port,
        host_address="127.0.0.1",
        host_port=port_of(lab.host.url),
        state_dir=str(folder / "runner"),
        cluster_secret_file=str(folder / "none"),
        resource_check_interval_seconds=30.0,
    )


@asynccontextmanager
async def runner_at(lab: Lab, folder: Path, port: int = 0) -> AsyncIterator[Runner]:
    """A runner that has joined, once the host knows this life of it."""
    settings, clock = runner_settings(lab, folder, port), SystemClock()
    if membership.find(settings) is None:
        place = machine.Place("127.0.0.1", settings.host_port)
        membership.keep(settings, await machine.join(settings, place, await lab.token()))
    async with running_runner(settings, FakeEngine(FakeNode(clock=clock), "c", "alpha"), clock, BigMachine()) as runner:
        await until(lambda: runner.link.joined)
        yield runner


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():
            await asyncio.sleep(0.01)


async def rotate(lab: Lab) -> int:
    return (await lab.house.ask("POST", "/api/nodes/alpha/rotate-key", lab.admin)).status


async def speak_both_ways(lab: Lab, runner: Runner) -> None:
    """Whoever calls the other is believed."""
    await runner.link._heartbeat()
    assert (await lab.host.scheduler.peer_at("alpha").call(runner_api.HEALTH, Nothing())).hostname == "alpha"


async def nobody_believes(lab: Lab, runner: Runner, key: bytes) -> None:
    with pytest.raises(NotLoggedIn):
        await lab.register("alpha", key)
    with pytest.raises(NotLoggedIn):
        await Peer(lab.house.http, runner.url, Signer("host", key, SteadyTime())).call(runner_api.HEALTH, Nothing())


def test_one_command_changes_it_and_the_one_before_is_void(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        port = free_port()
        async with runner_at(lab, tmp_path, port) as runner:
            voids = []
            for _ in range(2):
                voids.append(lab.host.keys.to("alpha"))
                assert await rotate(lab) == 200
                await speak_both_ways(lab, runner)
                for void in voids:
                    await nobody_believes(lab, runner, void)
            key = lab.host.keys.to("alpha")
            assert key not in voids and not lab.host.keys.unfinished
        async with runner_at(lab, tmp_path, port) as runner:  # from what it had kept
            await speak_both_ways(lab, runner)
        trail = await lab.house.trail(action="node.rotate-key")
        assert [(each["object"], each["result"], each["address"]) for each in trail] == [
            ("node:alpha", "ok", "127.0.0.1")
        ] * 2
        kept = b"".join(path.read_bytes() for path in (tmp_path / "host").glob("host.db*"))
        assert key not in kept and key.hex().encode() not in kept, "a copy of the database opens nothing"

    in_lab(tmp_path, work)


class Killed(RiverError):
    """Whoever was at work is no more."""


def after(real: Any, number: int = 1) -> Any:
    """The same, but whoever calls it for the `number`-th time is killed once it is done."""
    calls = iter(range(1, 100))

    async def done_and_killed(*given: Any) -> Any:
        made = await real(*given)
        if next(calls) == number:
            raise Killed("kill -9")
        return made

    return done_and_killed


async def killed_at_once(*given: Any) -> None:
    raise Killed("kill -9")


async def killed_on_the_way_to_take(self: Peer, route: Any, *given: Any) -> Any:
    if route is runner_key_api.TAKE_KEY:
        raise Killed("kill -9")
    return await CALL(self, route, *given)


CALL = Peer.call
DEATHS: dict[str, tuple[type, str, Callable[[], Any]]] = {
    "the runner, before it agrees": (HostKeys, "offer", lambda: killed_at_once),
    "the runner, before it answers": (HostKeys, "offer", lambda: after(HostKeys.offer)),
    "the host, before it keeps the key": (RunnerKeys, "commit", lambda: killed_at_once),
    "the host, when it has kept the key": (RunnerKeys, "commit", lambda: after(RunnerKeys.commit)),
    "the host, before it has the key taken": (Peer, "call", lambda: killed_on_the_way_to_take),
    "the runner, before it takes the key": (HostKeys, "take", lambda: killed_at_once),
    "the runner, when it has taken the key": (HostKeys, "take", lambda: after(HostKeys.take)),
    "the host, when all is done": (RunnerKeys, "commit", lambda: after(RunnerKeys.commit, 2)),
}


@pytest.mark.parametrize("death", DEATHS)
def test_whoever_is_killed_meanwhile_both_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str) -> None:
    async def run() -> None:
        async with AsyncExitStack() as host_life, AsyncExitStack() as runner_life:
            port, host_settings = free_port(), settings_in(tmp_path, host_port=free_port())
            lab = await host_life.enter_async_context(open_lab(host_settings))
            runner = await runner_life.enter_async_context(runner_at(lab, tmp_path, port))
            before, (owner, method, replacement) = lab.host.keys.to("alpha"), DEATHS[death]
            with monkeypatch.context() as patch:
                patch.setattr(owner, method, replacement())
                assert await rotate(lab) >= 400
            if death.startswith("the runner"):
                await runner_life.aclose()
                runner = await runner_life.enter_async_context(runner_at(lab, tmp_path, port))
            else:
                await host_life.aclose()
                lab = await host_life.enter_async_context(open_lab(host_settings))
            await speak_both_ways(lab, runner)
            await lab.host.key_rotation.step()
            assert not lab.host.keys.unfinished
            await speak_both_ways(lab, runner)
            assert await rotate(lab) == 200
            await speak_both_ways(lab, runner)
            await nobody_believes(lab, runner, before)

    asyncio.run(run())


def test_a_runner_that_is_away_keeps_its_key(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key = await lab.join(await lab.token())
        await lab.register("alpha", key)
        assert await rotate(lab) == 502
        assert lab.host.keys.to("alpha") == key and not lab.host.keys.unfinished
        assert (await lab.register("alpha", key)).cluster_id == lab.host.cluster_id
        shared = lab.host.keys.shared
        assert shared is not None
        await lab.register("beta", shared)
        said = await lab.house.ask("POST", "/api/nodes/beta/rotate-key", lab.admin)
        assert said.status == 409 and "cluster's secret" in said.message
        assert (await lab.house.ask("POST", "/api/nodes/nowhere/rotate-key", lab.admin)).status == 404

    in_lab(tmp_path, work)


def test_who_is_revoked_or_joins_again_has_no_former_key(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        async with runner_at(lab, tmp_path) as runner:
            before = lab.host.keys.to("alpha")
            row = lab.host.keys.own("alpha")
            await lab.host.keys.commit("alpha", lambda tx: runner_keys.succeed(tx, row))
            assert lab.host.keys.find_former("alpha") == before
            await lab.host.keys.commit("alpha", revoked)
            with pytest.raises(NotLoggedIn):
                await lab.register("alpha", before)
            assert not lab.host.keys.unfinished and runner.hostname == "alpha"

    def revoked(tx: sqlite3.Connection) -> None:
        runner_keys.delete(tx, "alpha")

    in_lab(tmp_path, work)
