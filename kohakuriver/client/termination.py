"""SIGTERM where a terminal must be given back first: it unwinds what runs, as Ctrl-C does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM


@contextmanager
def unwound_when_terminated() -> Iterator[None]:
    """SIGTERM raises SystemExit with the code that a shell gives it, while the block runs."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
