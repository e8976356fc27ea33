"""The life of one attempt, from acceptance to departure; it may be cut anywhere and taken up again."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from kohakuriver.model.errors import EngineFailed, NotFound, Refused, StoreUnavailable
from kohakuriver.model.report import WorkloadState
from kohakuriver.runner import attempt, steps
from kohakuriver.runner.attempt import Held, Unwanted
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.deadlines import Deadlines
from kohakuriver.system.engine import ContainerSpec, Observed, Phase

log = logging.getLogger(__name__)
LOGS_PATIENCE_SECONDS = 60.0
STORE_AGAIN_SECONDS = 2.0


@dataclass(slots=True)
class Life:
    """One attempt and the tools to live it."""

    bench: Bench
    held: Held

    async def live(self) -> None:
        """Go from where the attempt stands to where nothing of it is left in the engine."""
        known_before, self.held.known_before = self.held.known_before, True
        if not self.held.over and not self.held.fenced:
            end = await self._reach_end(known_before)
            if end is not None:
                await self._record(end)
        await self._clear_away()
        await self.leave()

    async def _clear_away(self) -> None:
        await self.bench.insist("remove", lambda: self.bench.engine.remove(self.held.key))

    async def _reach_end(self, known_before: bool) -> WorkloadState | None:
        """How it ended; None when it was fenced off before."""
        if not known_before:
            return await self._start()
        spec = steps.begin(self.bench, self.held).spec
        try:
            seen = await self._look()
            if seen.phase is Phase.CREATED:
                return await self._start()
            await self.bench.insist("adopt", lambda: self.bench.engine.adopt(spec))
        except NotFound:
            return self._vanished() if self.held.may_have_run else await self._start()
        return await self._watch(spec)

    async def _start(self) -> WorkloadState | None:
        work = steps.begin(self.bench, self.held)
        try:
            await steps.prepare(work)
        except Unwanted:
            return None if self.held.fenced else attempt.killed_before_start(self.held.state, self._now())
        except (EngineFailed, Refused) as why:
            return attempt.refused(self.held.state, why, self._now())
        return await self._watch(work.spec)

    async def _watch(self, spec: ContainerSpec) -> WorkloadState | None:
        """Look whenever the bell rings, until it has exited."""
        deadlines = Deadlines(self.bench, self.held)
        try:
            while not self.held.fenced:
                self.held.wake.clear()
                seen = await self._look()
                if seen.phase is Phase.EXITED:
                    if await self._goes_on(seen):
                        continue
                    return await self._finish(spec, seen, deadlines.pressed)
                if seen.phase is Phase.CREATED:
                    return self._vanished()  # it ran, and the engine does not remember
                await deadlines.press(seen)
                await self.held.wake.wait()
        except NotFound:
            return self._vanished()
        finally:
            deadlines.close()
        return None

    async def _goes_on(self, seen: Observed) -> bool:
        """Whether it was started once more; a task never is."""
        return False

    async def _look(self) -> Observed:
        """What the engine sees, taken into the state; raises NotFound."""
        return await self.bench.insist("observe", lambda: look_once(self.bench, self.held))

    async def _finish(self, spec: ContainerSpec, seen: Observed, pressed: bool) -> WorkloadState:
        note = await self._finish_logs(spec)
        end = attempt.exited(self.held, seen, pressed, self._now())
        return attempt.with_note(end, note) if note else end

    async def _finish_logs(self, spec: ContainerSpec) -> str:
        """Have the whole output on disk; the reason when that is not possible."""
        try:
            await self.bench.insist("logs", lambda: self.bench.engine.finish_logs(spec), LOGS_PATIENCE_SECONDS)
        except (EngineFailed, NotFound) as failed:
            return f"its output is not complete: {failed}"
        return ""

    async def _record(self, end: WorkloadState) -> None:
        """Store the end, which is what makes it true; then tell."""
        held = self.held
        end = await self._measured(end, held.accepted.log_directory)
        while True:
            try:
                await self.bench.store.end(held.key, end)
                break
            except StoreUnavailable as full:
                log.error("an end cannot be stored, will try again task=%s attempt=%s error=%s", *held.key, full)
            await self.bench.clock.sleep(STORE_AGAIN_SECONDS)
        held.state = end
        self.bench.changed.set()
        log.info("ended task=%s attempt=%s exit_code=%s message=%s", *held.key, end.exit_code, end.message or "-")

    async def _measured(self, end: WorkloadState, directory: Path) -> WorkloadState:
        stdout_bytes, stderr_bytes = await self.bench.outputs.close(directory)
        return replace(end, stdout_bytes=stdout_bytes, stderr_bytes=stderr_bytes)

    async def leave(self) -> None:
        """Nothing of it is left in the engine; only now is the mark of its run taken away."""
        if self.held.may_have_run:
            await self.bench.marks.take_away(self.held.key)
        self.held.departed = True
        self.held.gone.set()

    def _vanished(self) -> WorkloadState:
        return attempt.vanished(self.held, self._now())

    def _now(self) -> float:
        return self.bench.clock.now()


async def look_once(bench: Bench, held: Held) -> Observed:
    """What the engine sees now, taken into the state; raises NotFound, EngineFailed."""
    ticket = held.begin_look()
    seen = await bench.engine.observe(held.key)
    if held.take(seen, ticket):
        bench.changed.set()
    return seen
