"""What the life of an attempt works with: the tools of one runner, handed down."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.cluster import Cluster
from kohakuriver.runner.container_spec import MountRules, Site
from kohakuriver.runner.disk import Disk
from kohakuriver.runner.engine_slot import EngineSlot
from kohakuriver.runner.image_garbage import Garbage
from kohakuriver.runner.images import Images
from kohakuriver.runner.marks import Marks
from kohakuriver.runner.outputs import Outputs
from kohakuriver.runner.overlay import Overlay
from kohakuriver.runner.plain_network import PlainNetwork
from kohakuriver.runner.shared_storage import SharedStorage
from kohakuriver.runner.snapshots import Snapshots
from kohakuriver.runner.store import Store
from kohakuriver.runner.tunnel_door import TunnelDoor
from kohakuriver.system.clock import Clock
from kohakuriver.system.engine import Engine
from kohakuriver.system.loops import Loops, Wake

log = logging.getLogger(__name__)
T = TypeVar("T")
STARTS_AT_ONCE = 12
PAUSE_FIRST_SECONDS, PAUSE_CAP_SECONDS = 0.25, 4.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The tools; `changed` rings when there is something to report, `closing` when the runner stops."""

    settings: RunnerSettings
    hostname: str
    own_logs: Path
    local_temp: Path
    clock: Clock
    loops: Loops
    store: Store
    store_name: str
    slot: EngineSlot
    cluster: Cluster
    shared: SharedStorage
    marks: Marks
    outputs: Outputs
    disk: Disk
    sftp: Disk
    mount_rules: MountRules
    images: Images
    garbage: Garbage
    snapshots: Snapshots
    overlay: Overlay
    plain_network: PlainNetwork
    door: TunnelDoor
    changed: Wake = field(default_factory=Wake)
    closing: Wake = field(default_factory=Wake)
    starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS_AT_ONCE))

    @property
    def engine(self) -> Engine:
        """The engine; raises EngineFailed while there is none."""
        return self.slot.engine

    @property
    def log_root(self) -> Path:
        """Where the outputs of a new attempt go."""
        return self.shared.logs or self.own_logs

    def site(self) -> Site:
        """What container specs need to know, as it is now."""
        return Site(self.settings, self.hostname, self.cluster.id, self.shared.data, str(self.local_temp), self.door)

    async def insist(self, what: str, call: Callable[[], Awaitable[T]], patience_seconds: float | None = None) -> T:
        """The call's result, tried again until the engine can; raises its EngineFailed when patience is over."""
        waited, pause = 0.0, PAUSE_FIRST_SECONDS
        while True:
            try:
                return await call()
            except EngineFailed as failed:
                if patience_seconds is not None and waited + pause > patience_seconds:
                    raise
                level = logging.WARNING if waited == 0 else logging.DEBUG  # a daemon may be away for days
                log.log(level, "engine failed, will try until it can step=%s error=%s", what, failed)
            await self.clock.sleep(pause)
            waited += pause
            pause = min(2 * pause, PAUSE_CAP_SECONDS)
