"""How the contract suite gets at an engine, and the steps that its tests are written in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver.system.engine import ContainerSpec, Engine, Exit, Observed, Phase, WorkloadKey

PATIENCE_SECONDS = 60.0
CLUSTER, NODE = "contract", "alpha"


@dataclass(frozen=True)
class Rig:
    """How the suite gets at one kind of engine.

    `make(cluster, node)` gives an engine object, not yet open, each time over the same machine: two of them are one
    runner before and after its death. Unset `kills_on_memory_limit` where the engine cannot do it, and `has_own_root`
    where workloads see the files of the node.
    """

    make: Callable[[str, str], Engine]
    directory: Path
    image: str = ""
    network: str = ""
    kills_on_memory_limit: bool = True
    has_own_root: bool = True

    def spec(self, *command: str, task_id: int = 1, attempt: int = 1, **changes: Any) -> ContainerSpec:
        """A spec for a command, with its own log directory."""
        settings: dict[str, Any] = {
            "key": WorkloadKey(task_id, attempt),
            "name": f"kohakuriver-task-{task_id}",
            "image": self.image,
            "command": command,
            "log_directory": self.directory / "logs" / f"{task_id}-{attempt}",
            "log_limit_bytes": 10_000_000,
            "network": self.network,
            "labels": {
                "kohakuriver.cluster": CLUSTER,
                "kohakuriver.node": NODE,
                "kohakuriver.task": str(task_id),
                "kohakuriver.attempt": str(attempt),
                "kohakuriver.type": "command",
            },
        }
        return ContainerSpec(**(settings | changes))

    def shell(self, script: str, **changes: Any) -> ContainerSpec:
        """A spec for a script."""
        return self.spec("sh", "-c", script, **changes)


Scenario = Callable[[Any, Rig, Engine], Awaitable[None]]


def with_engine(scenario: Scenario) -> Callable[[Any, Rig], None]:
    """Make a test of `async def test(self, rig, engine)`: the engine is open, and emptied and closed afterwards."""

    async def play(case: Any, rig: Rig) -> None:
        engine = rig.make(CLUSTER, NODE)
        await engine.open()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await scenario(case, rig, engine)
        finally:
            for seen in await engine.observe_all():
                await engine.remove(seen.key)
            await engine.close()

    def test(self: Any, rig: Rig) -> None:
        asyncio.run(play(self, rig))

    test.__name__, test.__doc__ = getattr(scenario, "__name__", "test"), scenario.__doc__
    return test


async def launch(engine: Engine, spec: ContainerSpec) -> None:
    """Create and start."""
    await engine.create(spec)
    await engine.start(spec)


async def exited(engine: Engine, key: WorkloadKey) -> Exit:
    """Wait until the workload has exited; looks rather than trusts events, as a careful runner does now and then."""
    while (seen := await engine.observe(key)).phase is not Phase.EXITED:
        await asyncio.sleep(0.01)
    assert seen.exit is not None
    return seen.exit


async def ran(engine: Engine, spec: ContainerSpec) -> Exit:
    """Create, start, wait for the end and for the whole output."""
    await launch(engine, spec)
    end = await exited(engine, spec.key)
    await engine.finish_logs(spec)
    return end


async def printed(spec: ContainerSpec, text: bytes) -> None:
    """Wait until stdout holds the text, while the workload may still run."""
    while text not in stdout(spec):
        await asyncio.sleep(0.01)


def stdout(spec: ContainerSpec) -> bytes:
    """What the log file holds now."""
    return _read(spec.log_directory / "stdout")


def stderr(spec: ContainerSpec) -> bytes:
    """What the log file holds now."""
    return _read(spec.log_directory / "stderr")


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def by_key(seen: list[Observed]) -> dict[WorkloadKey, Observed]:
    """Looks, by whom they show."""
    assert len({each.key for each in seen}) == len(seen)
    return {each.key: each for each in seen}


async def longest_stall(work: Coroutine[Any, Any, None]) -> float:
    """Do the work; return the longest time in seconds for which the event loop did not come round meanwhile."""
    doing, worst_seconds = asyncio.create_task(work), 0.0
    while not doing.done():
        before = time.monotonic()
        await asyncio.sleep(0.002)
        worst_seconds = max(worst_seconds, time.monotonic() - before - 0.002)
    await doing
    return worst_seconds
