"""What stands in for a control group where there is none: the tree of processes under a supervisor.

It cannot limit the memory of all of them together or their number, and a process that outlives its supervisor is found
only while it stays in its session or becomes a child of the keeper.
"""

import contextlib
import resource
import signal

from kohakuriver.system import process_calls
from kohakuriver.system.cgroup import Limits


class TreeGroup:
    """A `Group` that is every descendant of a supervisor, or once that is dead, every member of a session."""

    def __init__(self, supervisor: list[int], main: list[int]) -> None:
        self._supervisor, self._main = supervisor, main
        self._limits, self._before = Limits(), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def make(self, limits: Limits) -> None:
        self._limits = limits

    def join(self) -> None:
        """Limit the writable private memory of each process; address space is not memory (GPU programs reserve much)."""
        if self._limits.memory_bytes is not None:
            self._before = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (self._limits.memory_bytes, self._before[1]))

    def leave(self) -> None:
        """Take the limit off us, and make it final for who has it by now."""
        if self._limits.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, self._before)
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_DATA, (self._limits.memory_bytes,) * 2)

    def pids(self) -> list[int]:
        if self._supervisor and process_calls.is_alive(self._supervisor):
            return process_calls.descendants(self._supervisor[0])
        if self._main and process_calls.identity(self._main[0])[1] in (0, self._main[1]):
            members = process_calls.session_members(self._main[0])
            return [pid for pid in members if process_calls.identity(pid)[1] >= self._main[1]]
        return []

    def freeze(self) -> None:
        process_calls.stop_all(self.pids)

    def thaw(self) -> None:
        process_calls.signal_all(self.pids, signal.SIGCONT)

    def is_frozen(self) -> bool:
        pids = self.pids()
        return bool(pids) and all(process_calls.is_stopped(pid) for pid in pids)

    def kill(self) -> None:
        """Stopped first: what cannot run cannot fork away."""
        self.freeze()
        process_calls.signal_all(self.pids, signal.SIGKILL)

    def oom_kills(self) -> int:
        return 0

    def remove(self) -> bool:
        return not self.pids()
