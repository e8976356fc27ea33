"""A reading that may take long, kept fresh by a thread, so that whoever asks never waits for it."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from kohakuriver.system.clock import Clock

T = TypeVar("T")


class Latest(Generic[T]):
    """The latest value of a blocking `read`, which is called at most once per `period_seconds`, one call at a time.

    The thread is a daemon: a disk or a driver that never answers must not keep the program from ending. `read` tells
    of trouble by its value; should it raise, Python's thread hook reports that, and the value stays.
    """

    def __init__(self, clock: Clock, read: Callable[[], T], before_first: T, period_seconds: float) -> None:
        self._clock = clock
        self._read = read
        self._value = before_first
        self._period_seconds = period_seconds
        self._due = clock.monotonic()
        self._reading: asyncio.Future[None] | None = None

    async def get(self, patience_seconds: float | None = 0.1) -> T:
        """The newest value there is after waiting that long (None: as long as it takes) for a reading that is due."""
        if self._reading is None and self._clock.monotonic() >= self._due:
            self._due = self._clock.monotonic() + self._period_seconds
            self._reading = self._begin()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=patience_seconds)
        return self._value

    def _begin(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        reading: asyncio.Future[None] = loop.create_future()
        threading.Thread(target=self._work, args=(loop, reading), name="reading", daemon=True).start()
        return reading

    def _work(self, loop: asyncio.AbstractEventLoop, reading: asyncio.Future[None]) -> None:
        found: list[T] = []
        try:
            found.append(self._read())
        finally:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(self._finish, reading, found)

    def _finish(self, reading: asyncio.Future[None], found: list[T]) -> None:
        self._reading = None
        if found:
            self._value = found[0]
        reading.set_result(None)
