"""64-bit ids that sort by time: 42 bits of milliseconds since 2024-01-01Z, 10 of instance, 12 of sequence."""

from collections.abc import Callable

from kohakuriver.model.codec import Snowflake

EPOCH_MS = 1_704_067_200_000


class Snowflakes:
    """Makes ids; they never go backwards and never repeat, even when the clock steps back.

    `now` gives unix seconds; `last` is the greatest id that was ever made (from the store), 0 when none.
    """

    def __init__(self, now: Callable[[], float], instance: int, last: int = 0) -> None:
        self._now, self._instance = now, instance & 0x3FF
        self._tick = (last >> 22 << 12 | 0xFFF) if last else 0  # `last` may be of a greater instance: next millisecond

    def next(self) -> Snowflake:
        """The next id; when one millisecond is used up, it borrows from the next one."""
        at_clock = (int(self._now() * 1000) - EPOCH_MS) << 12
        self._tick = max(at_clock, self._tick + 1)
        return Snowflake((self._tick >> 12) << 22 | self._instance << 12 | self._tick & 0xFFF)
