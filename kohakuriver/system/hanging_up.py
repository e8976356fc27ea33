"""End what was started in somebody's session: politely, then surely; also what an earlier life of the program left.

It is done as a terminal that is closed does it: whoever asked not to be hung up on (nohup, setsid) goes on.
"""

import asyncio
import logging
import os
import signal
from contextlib import suppress

from kohakuriver.system import process_calls

log = logging.getLogger(__name__)
GRACE_SECONDS, LOOK_SECONDS = 2.0, 0.05
MARK = "KOHAKURIVER_EXEC"  # the variable by which such a process is known: whose it is


async def hang_up(leader: list[int]) -> None:
    """End a session by its leader (pid, start time); a stranger with that pid is left alone."""
    if not await asyncio.to_thread(_signal, leader, signal.SIGHUP):
        return
    for _ in range(int(GRACE_SECONDS / LOOK_SECONDS)):
        if not process_calls.is_alive(leader):
            return
        await asyncio.sleep(LOOK_SECONDS)
    await asyncio.to_thread(_signal, leader, signal.SIGKILL)


async def end_strays(mark: str) -> int:
    """End the sessions with this mark, which nobody holds any more; gives how many there were."""
    leaders = await asyncio.to_thread(_leaders, mark)
    await asyncio.gather(*(hang_up(leader) for leader in leaders))
    return len(leaders)


async def end_orphans(mark: str) -> None:
    """Hang up on what went on in sessions with this mark when their leaders died with the program that began them."""
    await asyncio.to_thread(_hang_up_orphans, mark)


def _hang_up_orphans(mark: str) -> None:
    """Their mark ends with the number of the session: whoever has begun one of his own since is let be."""
    sessions: set[int] = set()
    for pid in _all_pids():
        with suppress(OSError):
            session = os.getsid(pid)
            if _has(pid, f"{MARK}={mark}/{session}".encode()):
                sessions.add(session)
    for session in sessions:
        if session not in process_calls.session_members(session):
            _signal_session(session, signal.SIGHUP)


def _signal(leader: list[int], number: int) -> bool:
    """Send the signal to the whole session, once to each; False when its leader is gone."""
    return process_calls.is_alive(leader) and _signal_session(leader[0], number)


def _signal_session(session: int, number: int) -> bool:
    """Whether that was possible.

    They stand still meanwhile, so that none is forked after the look and before the signal, and so gets away.
    """

    def members() -> list[int]:
        return process_calls.session_members(session)

    try:
        process_calls.stop_all(members)
        process_calls.signal_all(members, number)
    except PermissionError:
        log.warning(
            "a process that was started in a workload goes on, for this program is not root session=%d", session
        )
        return False
    finally:
        with suppress(PermissionError):
            process_calls.signal_all(members, signal.SIGCONT)
    return True


def _leaders(mark: str) -> list[list[int]]:
    """Those with the mark that were started from outside their namespace; what they started has it too, and lives on."""
    wanted = f"{MARK}={mark}".encode()
    return [process_calls.identity(pid) for pid in _all_pids() if _has(pid, wanted) and _came_from_outside(pid)]


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _has(pid: int, variable: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except OSError:
        return False


def _came_from_outside(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            facts = dict(line.split(b":", 1) for line in file.read().splitlines())
        parent = int(facts[b"PPid"])
        return os.getsid(pid) == pid and os.readlink(f"/proc/{parent}/ns/pid") != os.readlink(f"/proc/{pid}/ns/pid")
    except (OSError, KeyError, ValueError):
        return False
