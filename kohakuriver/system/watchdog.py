"""The self-check of a program: only while it passes does the service manager hear that the program lives."""

import logging

from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Loops, Step
from kohakuriver.system.notify import Notifier

_log = logging.getLogger(__name__)

LOOP_NAME = "watchdog"


def start_watchdog(loops: Loops, clock: Clock, notifier: Notifier, check: Step) -> None:
    """Start the loop that feeds the watchdog, if the service manager watches.

    It feeds when `check` returned (that the store answers, for instance) and no loop is stalled; a `check` that
    raises or hangs keeps it hungry, and the service manager then ends and restarts the program.
    """
    interval = notifier.watchdog_interval_seconds
    if interval is None:
        return

    async def step() -> None:
        await check()
        stalled = loops.stalled(clock.monotonic())
        if stalled:
            _log.error("loops are stalled names=%s", ",".join(stalled))
        else:
            notifier.watchdog()

    loops.start(LOOP_NAME, step, interval)
