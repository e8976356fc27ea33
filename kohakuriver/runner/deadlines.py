"""Ends an attempt that must end: its time limit, SIGTERM, the grace, SIGKILL."""

import asyncio
import logging
import signal

from kohakuriver.model.errors import Conflict, NotFound, StoreUnavailable
from kohakuriver.runner.attempt import Held, KillOrder, Why, stricter
from kohakuriver.runner.bench import Bench
from kohakuriver.system.engine import Observed, Phase

log = logging.getLogger(__name__)
TIME_LIMIT_GRACE_SECONDS = 10.0
KILL_AGAIN_SECONDS = 5.0


class Deadlines:
    """What must happen to one running attempt, and when; all moments are monotonic seconds."""

    def __init__(self, bench: Bench, held: Held) -> None:
        self._bench, self._held = bench, held
        self.pressed = False  # whether a signal was sent to end it
        self._limit_at: float | None = None
        self._kill_at: float | None = None
        self._alarm: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Nothing must happen any more."""
        if self._alarm is not None:
            self._alarm.cancel()

    async def press(self, seen: Observed) -> None:
        """Do what is due, and have the attempt's bell ring when the next thing is."""
        now = self._bench.clock.monotonic()
        if self._held.order is None and self._reached_limit(seen, now):
            await self._order_end()
        if self._held.order is not None:
            await self._end(self._held.order, seen, now)
        else:
            self._ring_at(self._limit_at, now)

    def _reached_limit(self, seen: Observed, now: float) -> bool:
        limit = self._held.accepted.request.spec.time_limit_seconds
        if limit is None:
            return False
        if self._limit_at is None:  # the wall clock is asked once; from then on nobody can step it
            ran = self._bench.clock.now() - (seen.started_at or self._bench.clock.now())
            self._limit_at = now + limit - max(0.0, ran)
        return now >= self._limit_at

    async def _order_end(self) -> None:
        self._held.order = stricter(None, Why.TIME_LIMIT, TIME_LIMIT_GRACE_SECONDS, self._bench.clock.now())
        assert self._held.order is not None
        try:
            await self._bench.store.order(self._held.key, self._held.order)
        except StoreUnavailable as full:  # the limit holds all the same; after a restart it is found reached again
            log.error("a time limit cannot be stored task=%s attempt=%s error=%s", *self._held.key, full)

    async def _end(self, order: KillOrder, seen: Observed, now: float) -> None:
        if self._kill_at is None:
            passed = max(0.0, self._bench.clock.now() - order.asked_at)
            self._kill_at = now + max(0.0, order.grace_seconds - passed)
            if self._kill_at > now:
                await self._ask_to_end(seen)
        self._kill_at = min(self._kill_at, now + order.grace_seconds)  # a later order was stricter
        if now >= self._kill_at:
            await self._signal(signal.SIGKILL)
            self._kill_at = now + KILL_AGAIN_SECONDS
        self._ring_at(self._kill_at, now)

    async def _ask_to_end(self, seen: Observed) -> None:
        if seen.phase is Phase.PAUSED:  # a frozen program cannot answer
            try:
                await self._bench.insist("resume", lambda: self._bench.engine.resume(self._held.key))
            except (NotFound, Conflict):
                return  # it is over: the next look tells
        await self._signal(signal.SIGTERM)

    async def _signal(self, number: signal.Signals) -> None:
        key = self._held.key
        log.info("signal task=%s attempt=%s signal=%s", *key, number.name)
        self.pressed = True
        try:
            await self._bench.insist("signal", lambda: self._bench.engine.signal(key, number))
        except NotFound:
            return  # it is over: the next look tells

    def _ring_at(self, moment: float | None, now: float) -> None:
        self.close()
        if moment is not None:
            self._alarm = self._bench.loops.spawn("alarm", self._ring_after(moment - now))

    async def _ring_after(self, seconds: float) -> None:
        await self._bench.clock.sleep(seconds)
        self._held.ring()
