"""All attempts of a node: takes new ones on, keeps the promises, tells how they stand, forgets what the host has."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.report import Acknowledged, AttemptRef, State, WorkloadState
from kohakuriver.model.runner_api import Attempt, Execute, Kill
from kohakuriver.runner.attempt import STANDING, Accepted, Held, KillOrder, Why, claim_of, one_line, preparing, stricter
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.life import look_once
from kohakuriver.runner.store import Kept
from kohakuriver.runner.vps_life import life_of
from kohakuriver.system.engine import Observed, WorkloadKey

log = logging.getLogger(__name__)
SWEEP_SECONDS = 3.0
LOOK_SECONDS = 20.0  # an engine that hangs is no reason to restart the runner
FORGET_SECONDS = 1.0


class Workloads:
    """The attempts that this runner answers for; `trouble` says why the engine cannot be used, empty when it can."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._held: dict[WorkloadKey, Held] = {}
        self._latest: dict[int, Held] = {}
        self._forgettable: list[WorkloadKey] = []
        self._leftovers: set[WorkloadKey] = set()
        self._connected = False
        self.trouble = ""

    # ---- from the store and the engine

    async def restore(self) -> None:
        """Take up from the store what a runner before this one had promised."""
        marks = await self._bench.marks.all()
        for kept in await self._bench.store.held():
            self._replace_by(_restored(kept, marks.get(kept.accepted.key)))
        for key in marks.keys() - self._held.keys():
            await self._bench.marks.take_away(key)
        log.info("restored attempts=%d", len(self._held))

    async def connect(self) -> None:
        """Connect the engine and bring together what it has and what is known; raises EngineFailed."""
        if self._connected:
            return
        try:
            await self._bench.slot.open(self._bench.cluster.id)
            seen = await self._look_at_all()
        except EngineFailed as failed:
            self._in_trouble(failed)
            raise
        self._well_again()
        self._connected = True
        for held in list(self._held.values()):
            self._begin(held)
        self._remove_leftovers({each.key for each in seen if not each.is_vps})
        self._bench.loops.run("engine events", self._listen)
        self._bench.loops.start("sweep", self._sweep, SWEEP_SECONDS)
        self._bench.changed.set()

    async def _listen(self) -> None:
        await self._bench.insist("listen", self._listen_once)

    async def _listen_once(self) -> None:
        async for key in self._bench.engine.events():
            held = self._held.get(key)
            if held is not None:
                held.ring()

    async def _sweep(self) -> None:
        """Heal what events did not tell, and take away what nobody knows."""
        known = set(self._held)  # before the look: what ends and goes meanwhile is no leftover
        expected = self.running()
        try:
            seen = {each.key: each for each in await self._look_at_all()}
        except EngineFailed as failed:
            return self._in_trouble(failed)
        self._well_again()
        for held in expected:
            if not _agrees(held, seen.get(held.key)):
                held.ring()
        self._remove_leftovers({key for key, each in seen.items() if not each.is_vps} - known)

    async def _look_at_all(self) -> list[Observed]:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._bench.engine.observe_all()
        except TimeoutError:
            raise EngineFailed(f"it took longer than {LOOK_SECONDS:g} s to look at its workloads") from None

    def _remove_leftovers(self, there: Iterable[WorkloadKey]) -> None:
        """No VPS among them: its container stays when it is stopped, until its host says that it is deleted."""
        for key in set(there) - self._held.keys() - self._leftovers:
            log.warning("removing a workload that nobody knows task=%s attempt=%s", *key)
            self._leftovers.add(key)
            self._bench.loops.spawn("leftover", self._remove_leftover(key))

    async def _remove_leftover(self, key: WorkloadKey) -> None:
        try:
            await self._bench.engine.remove(key)
        except EngineFailed as failed:
            log.warning("cannot remove it now task=%s attempt=%s error=%s", *key, failed)
        finally:
            self._leftovers.discard(key)

    def _in_trouble(self, failed: EngineFailed) -> None:
        if not self.trouble:
            log.error("the engine does not answer error=%s", failed)
        self.trouble = one_line(str(failed)) or "it does not answer"

    def _well_again(self) -> None:
        if self.trouble:
            log.info("the engine answers again")
        self.trouble = ""

    # ---- what the host asks

    async def accept(self, request: Execute) -> WorkloadState:
        """Take on an attempt, on disk before this returns; the same one again changes nothing.

        Raises Conflict when a newer attempt is known, EngineFailed when the engine is away, StoreUnavailable.
        """
        key = WorkloadKey(request.task_id, request.attempt)
        if key not in self._held and self.trouble:
            raise EngineFailed(f"its engine does not answer: {self.trouble}", retry_elsewhere=True)
        directory = self._bench.log_root / str(key.task_id) / str(key.attempt)
        accepted = Accepted(request, directory, self._bench.settings.log_limit_bytes)
        # Who asked may hang up; what is on disk must be taken on all the same.
        return await asyncio.shield(self._keep_promise(accepted))

    async def _keep_promise(self, accepted: Accepted) -> WorkloadState:
        fresh = preparing(accepted.request)
        known = await self._bench.store.accept(accepted, fresh)
        if known is None:
            self._replace_by(Held(accepted, fresh))
            if self._connected:
                self._begin(self._held[accepted.key])
        held = self._held.get(accepted.key)
        return held.state if held else known or fresh

    def _replace_by(self, held: Held) -> None:
        """Hold an attempt; an older one of the same task makes way for it."""
        before = self._latest.get(held.key.task_id)
        if before is not None:
            held.predecessor = before
            self._fence(before)
        self._held[held.key] = self._latest[held.key.task_id] = held

    async def kill(self, asked: Kill) -> WorkloadState:
        """Have an attempt end; raises NotFound, Conflict, StoreUnavailable."""
        return await self._end(asked, Why.ASKED)

    async def stop(self, asked: Kill) -> WorkloadState:
        """Have a VPS end, and stay; raises as `kill` does."""
        return await self._end(asked, Why.STOP)

    async def _end(self, asked: Kill, why: Why) -> WorkloadState:
        held = self._find(Attempt(task_id=asked.task_id, attempt=asked.attempt))
        order = stricter(held.order, why, asked.grace_seconds, self._bench.clock.now())
        standing = order or held.order
        if standing is not None and asked.spare is not None:
            order = replace(standing, spare=asked.spare)
        if order is not None and not held.over:
            await asyncio.shield(self._order(held, order))
        return held.state

    async def _order(self, held: Held, order: KillOrder) -> None:
        await self._bench.store.order(held.key, order)
        held.order = order
        held.ring()

    async def pause(self, asked: Attempt) -> WorkloadState:
        """Freeze an attempt; raises NotFound, Conflict, EngineFailed."""
        held = self._standing(asked)
        if held.order is not None:
            raise Conflict(f"task {asked.task_id} is being ended")
        if held.stands_still:
            raise Conflict(f"task {asked.task_id} is being saved")
        await self._bench.engine.pause(held.key)
        await look_once(self._bench, held)
        return held.state

    async def resume(self, asked: Attempt) -> WorkloadState:
        """Let a frozen attempt go on; raises NotFound, Conflict, EngineFailed."""
        held = self._standing(asked)
        if held.stands_still:
            raise Conflict(f"task {asked.task_id} is being saved")
        await self._bench.engine.resume(held.key)
        await look_once(self._bench, held)
        return held.state

    def find(self, task_id: int, attempt: int | None) -> Held | None:
        """An attempt that is held, the latest of the task when none is named."""
        held = self._latest.get(task_id)
        return held if attempt is None else self._held.get(WorkloadKey(task_id, attempt))

    def _find(self, asked: Attempt) -> Held:
        held = self._held.get(WorkloadKey(asked.task_id, asked.attempt))
        if held is not None:
            return held
        other = self._latest.get(asked.task_id)
        if other is not None:
            raise Conflict(f"task {asked.task_id} is here with attempt {other.key.attempt}, not {asked.attempt}")
        raise NotFound(f"there is no task {asked.task_id} on {self._bench.hostname}")

    def _standing(self, asked: Attempt) -> Held:
        held = self._find(asked)
        if held.state.state not in STANDING.values():
            raise Conflict(f"task {asked.task_id} is {held.state.state}")
        return held

    # ---- what the host is told

    def report(self) -> list[WorkloadState]:
        """Every attempt whose end the host has not confirmed."""
        return [held.state for held in self._held.values() if not held.acknowledged]

    async def measure(self) -> None:
        """Learn how long the outputs of what runs have become."""
        running = self.running()
        sizes = await self._bench.outputs.all_sizes([held.accepted.log_directory for held in running])
        for held, (stdout_bytes, stderr_bytes) in zip(running, sizes, strict=True):
            if not held.over:
                held.state = replace(held.state, stdout_bytes=stdout_bytes, stderr_bytes=stderr_bytes)

    def take(self, answer: Acknowledged) -> None:
        """Do what the host made of a report: forget these ends, remove these attempts."""
        for ref in answer.ended:
            held = self._named(ref)
            if held is not None and held.over:
                held.acknowledged = True
                self._forget_if_done(held)
        for ref in answer.fenced:
            held = self._named(ref)
            if held is not None:
                self._fence(held)
        for ref in answer.doubted:
            held = self._named(ref)
            if held is not None and held.state.claim is None:
                held.state = replace(held.state, claim=claim_of(held.accepted.request))
                self._bench.changed.set()

    async def discard(self, asked: Attempt) -> None:
        """Take away an attempt of which the host knows nothing, with all that is kept of it; raises NotFound, Conflict.

        What has ended already keeps its record until its files are gone, so that the rest can still be found.
        """
        held = self._find(asked)
        is_vps = held.accepted.request.vps is not None
        if is_vps and held.over:
            await self._bench.snapshots.discard(asked.task_id)
        self._fence(held)
        if is_vps and not held.departed:
            await held.gone.wait()
            await self._bench.snapshots.discard(asked.task_id)

    async def flush(self) -> None:
        """Forget on disk what is forgotten in memory, many at once."""
        if self._forgettable:
            keys = list(self._forgettable)
            await self._bench.store.forget(keys, self._bench.clock.now())
            del self._forgettable[: len(keys)]

    def running(self) -> list[Held]:
        """Every attempt that runs or is frozen."""
        return [held for held in self._held.values() if held.state.state in STANDING.values()]

    @property
    def holds_any(self) -> bool:
        return bool(self._held)

    def count(self, *states: State) -> int:
        """How many attempts are in one of these states."""
        return sum(held.state.state in states for held in self._held.values())

    def _named(self, ref: AttemptRef) -> Held | None:
        return self._held.get(WorkloadKey(ref.task_id, ref.attempt))

    def _fence(self, held: Held) -> None:
        if not held.fenced:
            log.warning("fenced off task=%s attempt=%s", *held.key)
        held.fenced = True
        held.ring()
        self._forget_if_done(held)

    # ---- holding and letting go

    def _begin(self, held: Held) -> None:
        self._bench.loops.run(f"attempt {held.key.task_id}/{held.key.attempt}", lambda: self._live(held))

    async def _live(self, held: Held) -> None:
        await life_of(self._bench, held).live()
        self._forget_if_done(held)

    def _forget_if_done(self, held: Held) -> None:
        if not held.departed or not (held.acknowledged or held.fenced) or held.key not in self._held:
            return
        del self._held[held.key]
        if self._latest.get(held.key.task_id) is held:
            del self._latest[held.key.task_id]
        self._forgettable.append(held.key)


def _restored(kept: Kept, marked_at: float | None) -> Held:
    held = Held(kept.accepted, kept.state, kept.order, known_before=True, may_have_run=marked_at is not None)
    if marked_at is not None and not held.over:  # it ran when it was last seen; the engine will tell more
        held.state = replace(held.state, state=State.RUNNING, started_at=marked_at)
    return held


def _agrees(held: Held, seen: Observed | None) -> bool:
    return seen is not None and STANDING.get(seen.phase) is held.state.state
