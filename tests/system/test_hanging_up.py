"""The end of a session: everybody in it hears of it, however fast they multiply."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kohakuriver.system import process_calls
from kohakuriver.system.hanging_up import MARK, end_orphans, hang_up

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
    until(lambda: not forking.members())  # those who heard it still have to die


def test_who_wants_to_leave_in_order_may(tidy: Session) -> None:
    asyncio.run(hang_up(tidy.leader))
    assert tidy.process.wait() == 0 and tidy.out.read() == b"clean\n"


def test_what_a_dead_leader_left_is_hung_up_on_but_not_who_asked_to_go_on() -> None:
    plain, deaf, apart = (str(10 * os.getpid() + 10_000_000 + number) for number in range(3))
    begin = f"sleep {plain} & nohup sleep {deaf} & setsid sleep {apart} & echo ready; wait"
    session = Session("sh", "-c", f"export {MARK}=mine/$$; {begin}")
    try:
        until(lambda: all(map(sleepers, (plain, deaf, apart))))
        asyncio.run(end_orphans("mine"))  # its leader lives: somebody holds it
        session.process.kill()
        os.waitid(os.P_PID, session.leader[0], os.WEXITED | os.WNOWAIT)  # dead, though nobody has taken notice
        asyncio.run(end_orphans("another's"))
        assert all(map(sleepers, (plain, deaf, apart)))
        asyncio.run(end_orphans("mine"))
        until(lambda: not sleepers(plain))
        assert sleepers(deaf) and sleepers(apart)
    finally:
        for pid in (*sleepers(plain), *sleepers(deaf), *sleepers(apart)):
            os.kill(pid, signal.SIGKILL)
        session.end()


def sleepers(seconds: str) -> list[int]:
    """Who sleeps so long, and nobody else does."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if place.joinpath("cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(place.name))
    return found


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
