"""The life of an attempt of a VPS: it is started again until somebody stops it, and its container outlives its end."""

import logging
import signal
from dataclasses import dataclass

from kohakuriver.model.errors import EngineFailed, NotFound, Refused
from kohakuriver.model.report import WorkloadState
from kohakuriver.runner.attempt import Held, Unwanted, Why, with_note
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.life import Life
from kohakuriver.system.engine import ContainerSpec, Observed, Phase

log = logging.getLogger(__name__)
ENGINE_PATIENCE_SECONDS = 120.0
SHORT_LIFE_SECONDS, SHORT_LIVES = 10.0, 5
MOST_PAUSE_SECONDS, ADRIFT_SECONDS = 30.0, 10.0


@dataclass(slots=True)
class VpsLife(Life):
    """One attempt of a VPS; whatever ended its process, a node that was switched off for example, it goes on."""

    short_lives: int = 0
    trouble: str = ""

    async def _look(self) -> Observed:
        """The same, and when nobody can come in because Docker does not know that it runs, it is started anew."""
        await self.bench.snapshots.none_under_way(self.held.key.task_id)
        seen = await Life._look(self)
        if seen.phase is Phase.RUNNING and not self.held.unwanted and await self._is_adrift():
            ran_seconds = self._now() - (seen.started_at or self._now())
            if ran_seconds < ADRIFT_SECONDS:  # Docker may be about to notice
                self.bench.loops.spawn("look again", self._look_later(ADRIFT_SECONDS - ran_seconds))
            else:
                log.warning("Docker does not know of a VPS that runs task=%s attempt=%s", *self.held.key)
                key = self.held.key
                await self.bench.insist("end", lambda: self.bench.engine.signal(key, signal.SIGKILL))
        return seen

    async def _is_adrift(self) -> bool:
        try:
            return await self.bench.snapshots.hands.is_adrift(self.held.key)
        except (EngineFailed, NotFound):
            return False  # it is away, or over: the next look tells

    async def _look_later(self, seconds: float) -> None:
        await self.bench.clock.sleep(seconds)
        self.held.ring()

    async def _goes_on(self, seen: Observed) -> bool:
        """Start it again, unless it is to end or ends at once each time; whether it runs."""
        if self.held.unwanted:
            return False
        ran_seconds = (seen.finished_at or 0.0) - (seen.started_at or 0.0)
        self.short_lives = self.short_lives + 1 if ran_seconds < SHORT_LIFE_SECONDS else 0
        if self.short_lives > SHORT_LIVES:
            self.trouble = f"it ends at once, {self.short_lives} times in a row"
            return False
        log.warning("a VPS ended by itself and is started again task=%s attempt=%s", *self.held.key)
        try:
            async with self.held.patience(None, "a pause"):
                await self.bench.clock.sleep(min(MOST_PAUSE_SECONDS, 2.0**self.short_lives - 1))
            await self.bench.insist("start again", self._start_again, ENGINE_PATIENCE_SECONDS)
        except Unwanted:
            return False
        except EngineFailed as failed:
            self.trouble = f"it cannot be started again: {failed}"
            return False
        return True

    async def _start_again(self) -> None:
        await self.bench.snapshots.hands.start_again(self.held.key)
        self.held.ring()

    async def _finish(self, spec: ContainerSpec, seen: Observed, pressed: bool) -> WorkloadState:
        end = await Life._finish(self, spec, seen, pressed)
        order = self.held.order
        if order is not None and order.why is Why.STOP and self.bench.settings.auto_snapshot_on_stop:
            end = with_note(end, await self._save(order.spare))
        return with_note(end, self.trouble)

    async def _save(self, spare: int | None) -> str:
        """Take a snapshot, for which `spare` does not go; why that was not possible, if it was not."""
        key, snapshots = self.held.key, self.bench.snapshots
        try:
            await self.bench.insist("snapshot", lambda: snapshots.save_if_changed(key, spare), ENGINE_PATIENCE_SECONDS)
        except (EngineFailed, Refused) as failed:
            return f"no snapshot was taken: {failed}"
        return ""

    async def _clear_away(self) -> None:
        """Its container stays with all its files, unless it never ran or another attempt has taken its place."""
        if self.held.state.refused or (self.held.fenced and not self.held.over):
            await Life._clear_away(self)


def life_of(bench: Bench, held: Held) -> Life:
    """The life of an attempt, by what it is an attempt of."""
    return VpsLife(bench, held) if held.accepted.request.vps else Life(bench, held)
