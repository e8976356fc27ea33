"""The supervisor: every piece of background work of a program is named, watched and restarted here."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kohakuriver.model.errors import TooMany, Unavailable
from kohakuriver.system.clock import Clock

_log = logging.getLogger(__name__)

STALL_FLOOR_SECONDS = 30.0
STALL_INTERVALS = 3
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0
_CANCEL_AGAIN_SECONDS = 1.0

Step = Callable[[], Awaitable[None]]


class Wake:
    """A bell for one loop: however often it rings while the loop is busy, the loop goes round once more."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Ring; to be called on the event loop's thread."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it has rung since the last `clear`."""
        return self._event.is_set()

    def clear(self) -> None:
        """Forget that it has rung."""
        self._event.clear()

    async def wait(self) -> None:
        """Return when it has rung."""
        await self._event.wait()


@dataclass(slots=True)
class _Pulse:
    """When a repeated step last began and ended, and when it should begin again (monotonic seconds)."""

    interval_seconds: float
    due: float
    running_since: float | None = None
    last_finished: float | None = None

    def stalled(self, now: float) -> bool:
        since = self.due if self.running_since is None else self.running_since
        return now - since > max(STALL_FLOOR_SECONDS, STALL_INTERVALS * self.interval_seconds)


class Loops:
    """All background work of one program; `jitter` gives numbers in [0, 1), `spawn_limit` bounds one-shot work."""

    def __init__(self, clock: Clock, jitter: Callable[[], float] = random.random, spawn_limit: int = 1_000) -> None:
        self._clock = clock
        self._jitter = jitter
        self._spawn_limit = spawn_limit
        self._named: dict[str, asyncio.Task[None]] = {}
        self._spawned: set[asyncio.Task[None]] = set()
        self._pulses: dict[str, _Pulse] = {}
        self._stopping = False

    def start(self, name: str, step: Step, interval_seconds: float, wake: Wake | None = None) -> None:
        """Repeat `step` now, then every `interval_seconds` after it ended, or as soon as `wake` rings.

        A failed step is logged and tried again after a jittered back-off, during which bells wait. A `Wake` belongs
        to one loop. Raises ValueError when the name is taken, Unavailable when the program is stopping.
        """
        self._check_name(name)
        pulse = self._pulses[name] = _Pulse(interval_seconds, due=self._clock.monotonic())
        self._keep(name, self._repeat(name, step, pulse, wake or Wake()))

    def run(self, name: str, factory: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Keep one long-lived coroutine going: made anew after a jittered back-off when it fails, over when it returns.

        Raises ValueError when the name is taken, Unavailable when the program is stopping.
        """
        self._check_name(name)
        self._keep(name, self._revive(name, factory))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do one piece of work in the background; an error of it is logged, and the task then simply ends.

        Raises TooMany when `spawn_limit` such pieces are under way, Unavailable when the program is stopping.
        """
        if self._stopping or len(self._spawned) >= self._spawn_limit:
            work.close()
            raise self._refusal(name)
        task: asyncio.Task[None] = asyncio.create_task(self._once(name, work), name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        task.add_done_callback(lambda _: work.close())  # matters only when cancelled before its first line
        return task

    def stalled(self, now: float) -> list[str]:
        """Names of loops whose step runs, or is overdue, longer than max(30 s, 3 x interval); `now` is monotonic."""
        return sorted(name for name, pulse in self._pulses.items() if pulse.stalled(now))

    def last_finished(self, name: str) -> float | None:
        """When the loop's step last ended, well or badly, in monotonic seconds; None before the first end."""
        return self._pulses[name].last_finished

    async def stop(self) -> None:
        """Cancel everything and return when all of it has ended; nothing can be started afterwards."""
        self._stopping = True
        ours = asyncio.current_task()
        pending = {task for task in (*self._named.values(), *self._spawned) if task is not ours}
        while pending:
            for task in pending:
                task.cancel()
            # Work may swallow one cancellation by mistake (a library's race); ask until it listens.
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)

    def _check_name(self, name: str) -> None:
        if self._stopping:
            raise self._refusal(name)
        if name in self._named:
            raise ValueError(f"a loop named {name} is already there")

    def _refusal(self, name: str) -> Exception:
        if self._stopping:
            return Unavailable(f"{name}: the program is stopping")
        return TooMany(f"{name}: {self._spawn_limit} pieces of background work are under way; try again shortly")

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._named[name] = task
        task.add_done_callback(lambda _: self._forget(name))

    def _forget(self, name: str) -> None:
        self._named.pop(name, None)
        self._pulses.pop(name, None)

    async def _repeat(self, name: str, step: Step, pulse: _Pulse, wake: Wake) -> None:
        failures = 0
        while True:
            wake.clear()  # before the step, so that a bell during it brings another round
            pulse.running_since = self._clock.monotonic()
            well = await self._attempt(name, step)
            failures = 0 if well else failures + 1
            pause = pulse.interval_seconds if well else self._backoff_seconds(failures)
            pulse.running_since, pulse.last_finished = None, self._clock.monotonic()
            pulse.due = pulse.last_finished + pause
            if well:
                await self._sleep_or(wake, pause)
            else:
                await self._clock.sleep(pause)

    async def _revive(self, name: str, factory: Callable[[], Coroutine[Any, Any, None]]) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            if await self._attempt(name, factory):
                return
            lasted = self._clock.monotonic() - began
            failures = 1 if lasted > BACKOFF_CAP_SECONDS else failures + 1
            await self._clock.sleep(self._backoff_seconds(failures))

    async def _once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        await self._attempt(name, lambda: work)

    async def _attempt(self, name: str, work: Step) -> bool:
        try:
            await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._stopping or (task and task.cancelling()):
                raise
            # Not ours: something that the work waited for was cancelled. That must not end the loop silently.
            _log.warning("background work was cancelled from inside name=%s", name, exc_info=True)
            return False
        except Exception:  # noqa: BLE001 (whatever a step does wrong must not end its loop)
            _log.exception("background work failed name=%s", name)
            return False
        return True

    def _backoff_seconds(self, failures: int) -> float:
        longest = min(BACKOFF_CAP_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + self._jitter() / 2)

    async def _sleep_or(self, wake: Wake, seconds: float) -> None:
        racers = {asyncio.create_task(self._clock.sleep(seconds)), asyncio.create_task(wake.wait())}
        try:
            await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for racer in racers:
                racer.cancel()
            await asyncio.wait(racers)
