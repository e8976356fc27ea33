"""Silent nodes are found, however the times are set."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kohakuriver.host.background.health import HealthCheck
from kohakuriver.host.services.node_registry import LiveNode, NodeRegistry
from kohakuriver.host.services.task_scheduler import TaskScheduler
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.loops import Wake
from tests.manual_clock import ManualClock


async def _nothing(*anything: Any) -> int:
    return 0


@pytest.mark.parametrize(("heartbeat", "check"), [(5.0, 10.0), (1.0, 10.0), (0.2, 3600.0), (60.0, 10.0)])
def test_a_silent_node_goes_offline_soon_after_its_time(heartbeat: float, check: float) -> None:
    async def body() -> None:
        clock, registry = ManualClock(), NodeRegistry([], 0.0)
        node = registry.nodes["n1"] = LiveNode(cast(Any, None), clock.monotonic())
        outbox = SimpleNamespace(prune=lambda now: None)
        scheduler = SimpleNamespace(outbox=outbox, tell_whether_there=_nothing, give_up_on=_nothing)
        settings = HostSettings(heartbeat_interval_seconds=heartbeat, cleanup_check_interval_seconds=check)
        health = HealthCheck(settings, registry, cast(TaskScheduler, scheduler), clock, Wake())
        while clock.monotonic() - node.seen <= 6 * heartbeat:
            await health.step()
            assert node.online
            clock.stand_still(health.period_seconds)
        await health.step()
        assert not node.online

    asyncio.run(body())
