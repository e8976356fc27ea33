"""What /proc tells of processes, and signals that reach only whom they should."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kohakuriver.system import process_calls


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with two children, in a session of their own."""
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000 & wait"], start_new_session=True)
    wait_until(lambda: len(process_calls.descendants(shell.pid)) == 2)
    yield shell
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()


def test_cpu_lists_of_the_kernel() -> None:
    assert process_calls.parse_cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert process_calls.parse_cpu_list("\n") == set()


def test_a_process_is_known_by_its_pid_and_its_start(family: subprocess.Popen[bytes]) -> None:
    process = process_calls.identity(family.pid)
    assert process_calls.is_alive(process)
    assert not process_calls.is_alive([process[0], process[1] - 1])
    assert not process_calls.is_alive([process[0], 0])


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    process = process_calls.identity(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_calls.is_alive(process)
    assert process_calls.identity(child.pid) == [child.pid, 0]
    child.wait()


def test_a_family_is_found(family: subprocess.Popen[bytes]) -> None:
    offspring = process_calls.descendants(family.pid)
    assert sorted(process_calls.children(family.pid)) == sorted(offspring)
    assert sorted(process_calls.session_members(family.pid)) == sorted([family.pid, *offspring])
    assert set(offspring) < set(process_calls.descendants(os.getpid()))


def test_only_members_get_a_signal(family: subprocess.Popen[bytes]) -> None:
    first, second = process_calls.descendants(family.pid)
    answers = iter([[first, second], [second]])
    process_calls.signal_all(lambda: next(answers), signal.SIGKILL)
    wait_until(lambda: second not in process_calls.descendants(family.pid))
    assert process_calls.descendants(family.pid) == [first], "it had left before the signal was sent"


def test_a_stopped_process_is_seen_stopped(family: subprocess.Popen[bytes]) -> None:
    os.kill(family.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, family.pid, os.WSTOPPED)
    assert process_calls.is_stopped(family.pid)


def test_a_process_that_has_not_noticed_yet_that_it_is_stopped_is_seen_stopped(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    begin = (
        f"posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(POSIX_SPAWN_OPEN, 0, {str(fifo)!r}, O_RDONLY, 0)])"
    )
    busy = subprocess.Popen([sys.executable, "-c", f"from os import *; {begin}"])  # until its child has opened the file
    try:
        wait_until(lambda: state_of(busy.pid) == "D")
        assert not process_calls.is_stopped(busy.pid)
        os.kill(busy.pid, signal.SIGSTOP)
        assert state_of(busy.pid) == "D"
        assert process_calls.is_stopped(busy.pid)
    finally:
        os.close(os.open(fifo, os.O_RDWR))
        busy.kill()
        busy.wait()
