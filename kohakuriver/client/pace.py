"""Time as the client uses it: the clock, pauses that grow, and how long a host that went away is waited for."""

import time
from collections.abc import Callable
from typing import NamedTuple

from kohakuriver.model.errors import NodeUnreachable, RiverError, Unavailable

PATIENCE_SECONDS = 600.0


class Clock(NamedTuple):
    """Unix seconds, monotonic seconds, and a way to let time pass."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Pauses:
    """Pauses that grow from `first` to `most` seconds."""

    def __init__(self, clock: Clock, first: float = 0.02, most: float = 1.0, factor: float = 1.5) -> None:
        self._clock, self._first, self._most, self._factor = clock, first, most, factor
        self._next = first

    def pause(self) -> None:
        self._clock.sleep(self._next)
        self._next = min(self._most, self._next * self._factor)

    def reset(self) -> None:
        self._next = self._first


class Patience:
    """How long to try again when what worked before does not answer any more.

    `tell` gets a line when that begins. What never worked is not tried again: the address may be wrong.
    """

    def __init__(self, clock: Clock, tell: Callable[[str], None]) -> None:
        self._clock, self._tell = clock, tell
        self._worked, self._failures, self._since = False, 0, 0.0
        self._pauses = Pauses(clock, 0.1, 2.0)

    def well(self) -> None:
        """It works."""
        self._worked, self._failures = True, 0
        self._pauses.reset()

    def bear(self, error: RiverError) -> None:
        """Pause before the next try; raises the error when it has lasted too long or trying again cannot help."""
        if not self._worked or not isinstance(error, Unavailable):
            raise error
        now = self._clock.monotonic()
        self._failures += 1
        if self._failures == 1:  # a single broken connection is not worth a line
            self._since = now
        elif self._failures == 2:
            who = "the node" if isinstance(error, NodeUnreachable) else "the host"
            self._tell(f"{who} does not answer just now; trying again for {PATIENCE_SECONDS / 60:.0f} minutes")
        elif now - self._since > PATIENCE_SECONDS:
            raise error
        self._pauses.pause()
