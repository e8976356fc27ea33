"""Snapshots of a node's VPS: taken one at a time, within the room that there is, and no more of them than are kept."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, EngineFailed, NotFound, RiverError
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.model.vps import Snapshot, SnapshotState
from kohakuriver.runner.attempt import Held, one_line
from kohakuriver.runner.engine_slot import EngineSlot
from kohakuriver.system.clock import Clock
from kohakuriver.system.engine import Phase, Saved, WorkloadKey, Workspaces

log = logging.getLogger(__name__)
EXIT_LOOK_SECONDS = 0.2
CLOCK_GRAIN_SECONDS = 0.05  # file systems tell times from clocks as coarse as this


@dataclass(frozen=True, slots=True)
class Snapshots:
    """All of them, by the ids of their VPS; `_told` is what is under way or failed last."""

    slot: EngineSlot
    settings: RunnerSettings
    clock: Clock
    _locks: dict[int, asyncio.Lock] = field(default_factory=dict)
    _told: dict[int, Snapshot] = field(default_factory=dict)

    @property
    def hands(self) -> Workspaces:
        """What acts; raises EngineFailed where no VPS can be."""
        found = self.slot.engine.workspaces
        if found is None:
            raise EngineFailed("this node has no containers, which a VPS needs", retry_elsewhere=True)
        return found

    async def list(self, task_id: int) -> list[Snapshot]:
        """What there is of a VPS, oldest first, and last what is being taken or could not be."""
        ready = [_shown(task_id, saved) for saved in await self.hands.snapshots(task_id)]
        told = self._told.get(task_id)
        return ready + ([told] if told and told.timestamp not in {each.timestamp for each in ready} else [])

    async def announce(self, task_id: int, message: str, automatic: bool) -> Snapshot:
        """Say that one is about to be taken; raises Conflict while another is."""
        under_way = self._told.get(task_id)
        if under_way is not None and under_way.state is SnapshotState.TAKING:
            raise Conflict(f"a snapshot of VPS {task_id} is being taken already")
        last = max((saved.timestamp for saved in await self.hands.snapshots(task_id)), default=0)
        made = Snapshot(
            task_id=Snowflake(task_id),
            timestamp=max(int(self.clock.now()), last + 1),
            state=SnapshotState.TAKING,
            message=message,
            automatic=automatic,
        )
        self._told[task_id] = made
        return made

    async def take(
        self, key: WorkloadKey, announced: Snapshot, held: Held | None = None, spare: int | None = None
    ) -> None:
        """Take what was announced, and let old ones but `spare` go for it.

        Raises Conflict when there is no room, EngineFailed, NotFound.
        """
        try:
            async with self._lock(key.task_id):
                await self._take(key, announced, held)
                await self._prune(key.task_id, spare)
        except RiverError as failed:
            why = one_line(str(failed))
            log.warning("no snapshot task=%s attempt=%s error=%s", *key, why)
            self._told[key.task_id] = replace(announced, state=SnapshotState.FAILED, error=why)
            raise
        self._told.pop(key.task_id, None)
        log.info("snapshot task=%s attempt=%s timestamp=%s", *key, announced.timestamp)

    async def take_quietly(self, key: WorkloadKey, announced: Snapshot, held: Held | None) -> None:
        """The same for somebody who looks at the list to learn how it went."""
        with suppress(RiverError):
            await self.take(key, announced, held)

    async def _take(self, key: WorkloadKey, announced: Snapshot, held: Held | None) -> None:
        await self.hands.sweep(key.task_id)
        if lack := await self.hands.lacks_room(key, self.settings.snapshot_reserve_bytes):
            raise Conflict(lack)
        saved = Saved(
            timestamp=announced.timestamp,
            image="",
            message=announced.message,
            automatic=announced.automatic,
            began_at=self.clock.now() - CLOCK_GRAIN_SECONDS,
        )
        if held is not None:
            held.stands_still = True
        try:
            await self.hands.take(key, saved)
        finally:
            if held is not None:
                held.stands_still = False
                held.ring()

    async def _prune(self, task_id: int, spare: int | None) -> None:
        for old in to_prune(await self.hands.snapshots(task_id), self.settings.max_snapshots_per_vps):
            if old.timestamp != spare:
                await self.hands.delete_snapshot(task_id, old.timestamp)
        await self.hands.sweep(task_id)

    async def none_under_way(self, task_id: int) -> None:
        """Return when no snapshot of a VPS is being taken: until then it must not be thawed."""
        async with self._lock(task_id):
            pass

    async def save_if_changed(self, key: WorkloadKey, spare: int | None = None) -> None:
        """An automatic one, unless the last one shows all that there is; `spare` and errors are those of `take`."""
        await self.none_under_way(key.task_id)
        saved = await self.hands.snapshots(key.task_id)
        if not saved or await self.hands.changed_since(key, saved[-1].began_at):
            await self.take(key, await self.announce(key.task_id, "", automatic=True), spare=spare)

    async def image_for(self, key: WorkloadKey, restore: int | None) -> str:
        """The image from which an attempt goes on; whatever the container before it holds is saved first.

        Raises NotFound for a snapshot that is not there, Conflict when nothing is left of the VPS or there is no room.
        """
        for before in await self.hands.containers(key.task_id):
            if before.key.attempt < key.attempt:
                await self._end(before.key)
                await self.save_if_changed(before.key, spare=restore)
        saved = {each.timestamp: each.image for each in await self.hands.snapshots(key.task_id)}
        if restore is not None and restore not in saved:
            raise NotFound(f"VPS {key.task_id} has no snapshot {restore}")
        if not saved:
            raise Conflict("its container is gone, and there is no snapshot of it; delete it and make a new one")
        return saved[restore if restore is not None else max(saved)]

    async def _end(self, key: WorkloadKey) -> None:
        """What still runs under an older number is nobody's; its files count."""
        while (await self.slot.engine.observe(key)).phase in (Phase.RUNNING, Phase.PAUSED):
            await self.slot.engine.signal(key, signal.SIGKILL)
            await self.clock.sleep(EXIT_LOOK_SECONDS)

    async def latest_container(self, task_id: int) -> WorkloadKey:
        """Of which a snapshot can be taken; raises NotFound when there is none."""
        found = await self.hands.containers(task_id)
        if not found:
            raise NotFound(f"VPS {task_id} has no container on this node")
        return found[-1].key

    async def delete(self, task_id: int, timestamp: int) -> None:
        """Take one away; raises NotFound."""
        async with self._lock(task_id):
            await self.hands.delete_snapshot(task_id, timestamp)
            await self.hands.sweep(task_id)

    async def discard(self, task_id: int) -> None:
        """Take everything of a VPS away: it is deleted."""
        async with self._lock(task_id):
            for seen in await self.hands.containers(task_id):
                await self.slot.engine.remove(seen.key)
            for saved in await self.hands.snapshots(task_id):
                await self.hands.delete_snapshot(task_id, saved.timestamp)
            await self.hands.sweep(task_id)
        self._told.pop(task_id, None)

    def _lock(self, task_id: int) -> asyncio.Lock:
        return self._locks.setdefault(task_id, asyncio.Lock())


def to_prune(saved: Sequence[Saved], keep: int) -> list[Saved]:
    """Which to take away so that `keep` stay: the oldest automatic ones first, and never the newest of all.

    Automatic ones never make a person's go: only more than `keep` of a person's own do.
    """
    by_hand = [each for each in saved if not each.automatic]
    automatic = [each for each in saved if each.automatic]
    room = max(1, keep - len(by_hand))
    return by_hand[:-keep] + automatic[:-room]


def _shown(task_id: int, saved: Saved) -> Snapshot:
    return Snapshot(
        task_id=Snowflake(task_id),
        timestamp=saved.timestamp,
        message=saved.message,
        automatic=saved.automatic,
        size_bytes=saved.size_bytes,
        total_bytes=saved.total_bytes,
    )
