"""A program that a signal stops cleans up first, and exits as shells expect."""

import asyncio
import os
import signal

import pytest

from kohakuriver.programs.signals import STOPS, until_told_to_stop


def test_the_exit_code_of_the_work_is_the_programs() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(until_told_to_stop(work)) == 7


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_the_work_and_a_second_one_does_not_hurry_its_cleaning(number: signal.Signals) -> None:
    cleaned = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), number)
            for _ in range(10):
                await asyncio.sleep(0)
            cleaned.append(True)
        return 0

    assert asyncio.run(until_told_to_stop(work)) == 128 + number
    assert cleaned == [True]


def test_a_cancellation_that_no_signal_caused_goes_on() -> None:
    async def work() -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(until_told_to_stop(work))


def test_handlers_go_when_the_work_is_over() -> None:
    async def work() -> int:
        return 0

    before = signal.getsignal(signal.SIGHUP)
    asyncio.run(until_told_to_stop(work))
    assert signal.getsignal(signal.SIGHUP) == before
