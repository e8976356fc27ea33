"""System calls about processes that Python does not offer, and the facts about processes that /proc tells."""

import contextlib
import ctypes
import functools
import os
import platform
import signal
from collections.abc import Callable, Collection

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MPOL_DEFAULT, _MPOL_BIND = 0, 2
_MOST_LOOKS = 1000  # however fast they fork, each look stops some of those that do
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}.get(platform.machine())


def become_subreaper() -> None:
    """Become the parent of every descendant that loses its own."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(number: int) -> None:
    """Have the kernel send the calling process this signal when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def bind_memory(numa_node: int) -> None:
    """Take memory of the calling process and its descendants from one NUMA node; without NUMA, do nothing."""
    if _SET_MEMPOLICY is None:
        return
    bits = ctypes.sizeof(ctypes.c_ulong) * 8
    mask = (ctypes.c_ulong * (numa_node // bits + 1))()
    mask[numa_node // bits] = 1 << (numa_node % bits)
    _LIBC.syscall(_SET_MEMPOLICY, _MPOL_BIND, mask, len(mask) * bits + 1)


def unbind_memory() -> None:
    """Take memory from anywhere again."""
    if _SET_MEMPOLICY is not None:
        _LIBC.syscall(_SET_MEMPOLICY, _MPOL_DEFAULT, None, 0)


def numa_cpus(numa_node: int) -> set[int]:
    """The logical CPUs of a NUMA node; raises FileNotFoundError when there is no such node."""
    with open(f"/sys/devices/system/node/node{numa_node}/cpulist", "rb") as file:
        return parse_cpu_list(file.read().decode())


def parse_cpu_list(text: str) -> set[int]:
    """The numbers in a kernel CPU list such as `0-3,8`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


@functools.cache
def boot_id() -> str:
    """What tells this boot of the machine from any other."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode().strip()


def identity(pid: int) -> list[int]:
    """The process (pid, start time in ticks since boot); a start of 0 when it is gone."""
    _, fields = _stat(pid)
    return [pid, int(fields[19]) if fields and fields[0] not in ("Z", "X") else 0]


def is_alive(process: list[int]) -> bool:
    """Whether that very process still runs: a zombie does not, nor does a stranger with its pid."""
    return process[1] != 0 and identity(process[0]) == process


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process, or will before it does anything more."""
    return _is_pending(pid, signal.SIGSTOP) or _stat(pid)[1][:1] == ["T"]


def children(pid: int) -> list[int]:
    """The living children of a process."""
    return [other for other, fields in _all_stats() if int(fields[1]) == pid and fields[0] != "Z"]


def descendants(pid: int) -> list[int]:
    """The living children of a process, and theirs, in no order."""
    children: dict[int, list[int]] = {}
    for other, fields in _all_stats():
        children.setdefault(int(fields[1]), []).append(other)
    found, left = [], [pid]
    while left:
        offspring = children.get(left.pop(), [])
        found += offspring
        left += offspring
    return [each for each in found if _stat(each)[1][:1] != ["Z"]]


def session_members(session: int) -> list[int]:
    """The living processes of a session."""
    return [pid for pid, fields in _all_stats() if int(fields[3]) == session and fields[0] != "Z"]


def signal_all(members: Callable[[], Collection[int]], number: int) -> None:
    """Send a signal to every member; a pid that was reused meanwhile is not one of them and gets none."""
    handles: dict[int, int] = {}
    with contextlib.ExitStack() as opened:
        for pid in members():
            with contextlib.suppress(ProcessLookupError):
                handles[pid] = os.pidfd_open(pid)
                opened.callback(os.close, handles[pid])
        still = set(members())
        for pid, handle in handles.items():
            if pid in still:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)


def stop_all(members: Callable[[], Collection[int]]) -> None:
    """Stop every member until no look finds a new one: what is stopped cannot fork."""
    stopped: set[int] = set()
    for _ in range(_MOST_LOOKS):
        found = set(members())
        if not found - stopped:
            return
        signal_all(members, signal.SIGSTOP)
        stopped |= found


def _is_pending(pid: int, number: int) -> bool:
    """Whether a signal sent to the process waits for it to notice (proc_pid_status(5))."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith((b"SigPnd:", b"ShdPnd:"))]
        return any(mask >> (number - 1) & 1 for mask in masks)
    return False


def _all_stats() -> list[tuple[int, list[str]]]:
    stats = [_stat(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return [(pid, fields) for pid, fields in stats if fields]


def _stat(pid: int) -> tuple[int, list[str]]:
    """The fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, ...); none when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return pid, []
    return pid, text[text.rindex(b")") + 2 :].decode().split()
