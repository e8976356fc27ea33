"""Time as an argument: the one way in which the programs ask what time it is or wait."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a program may ask of time; tests hand in one that they move by hand."""

    def now(self) -> float:
        """Wall-clock time in UTC unix seconds; it may step either way, so never measure with it."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; it never steps, so deadlines and ages are kept in it."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many monotonic seconds; zero or less only lets others run."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
