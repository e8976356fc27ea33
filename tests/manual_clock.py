"""A clock that stands still until a test moves it."""

import asyncio
import heapq
import itertools

_SETTLE_ROUNDS = 50


class ManualClock:
    """A `Clock` for tests: sleepers wake, in order of their deadlines, when `advance` passes them."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._wall_offset = now - monotonic
        self._monotonic = monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._monotonic + self._wall_offset

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        await woken

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would; sleepers do not notice."""
        self._wall_offset += seconds

    def stand_still(self, seconds: float) -> None:
        """Let time pass and nobody notice, as when the program was stopped: who should have woken does so late."""
        self._monotonic += seconds

    def sleeping(self) -> int:
        """How many sleepers there are."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let that many seconds pass, waking each sleeper at its own moment and letting it work.

        Work that leaves the event loop (threads, sockets) may still be under way when this returns.
        """
        end = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # its sleeper was cancelled
                continue
            self._monotonic = max(self._monotonic, due)
            woken.set_result(None)
            await self.settle()
        self._monotonic = end
        await self.settle()

    async def settle(self) -> None:
        """Let everything that can go on without time passing go on."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)
