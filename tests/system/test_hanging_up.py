"""The end of a session: everybody in it hears of it, however fast they multiply."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from kohakuriver.system import process_calls
from kohakuriver.system.hanging_up import hang_up

FORKS_ON_AND_ON = """
import os, signal, time
print("ready", flush=True)
for _ in range(3000):
    if os.fork() == 0:
        signal.pause()
    time.sleep(0.002)
"""
CLEANS_UP = "trap 'sleep 0.05; echo clean; exit 0' HUP; echo ready; while :; do sleep 0.02; done"


class Session:
    """A process that leads a session of its own."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.out = self.process.stdout
        assert self.out.readline() == b"ready\n"
        self.leader = process_calls.identity(self.process.pid)

    def members(self) -> list[int]:
        return process_calls.session_members(self.leader[0])

    def end(self) -> None:
        while found := self.members():
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()
        self.out.close()


@pytest.fixture
def forking() -> Iterator[Session]:
    session = Session(sys.executable, "-I", "-S", "-c", FORKS_ON_AND_ON)
    yield session
    session.end()


@pytest.fixture
def tidy() -> Iterator[Session]:
    session = Session("sh", "-c", CLEANS_UP)
    yield session
    session.end()


def test_nobody_is_forked_past_the_signal(forking: Session) -> None:
    asyncio.run(hang_up(forking.leader))
    forking.process.wait()
    deadline = time.monotonic() + 60
    while forking.members() and time.monotonic() < deadline:
        time.sleep(0.01)  # those who heard it still have to die
    assert not forking.members()


def test_who_wants_to_leave_in_order_may(tidy: Session) -> None:
    asyncio.run(hang_up(tidy.leader))
    assert tidy.process.wait() == 0 and tidy.out.read() == b"clean\n"
