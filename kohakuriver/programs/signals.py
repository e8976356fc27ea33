"""Run something until it ends or a person, or the terminal's end, stops it; either way it cleans up."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_told_to_stop(work: Callable[[], Awaitable[int]]) -> int:
    """The exit code of `work`, or 128 + the signal that stopped it; a second signal does not hurry the cleaning."""
    task = asyncio.current_task()
    assert task is not None
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await work()
    except asyncio.CancelledError:
        if not told:
            raise
        task.uncancel()
        return 128 + told[0]
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
