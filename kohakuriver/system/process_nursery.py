"""The keeper's side of supervisors: forking them, hearing from them, and doing what is left to do when one dies."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system import process_calls, process_journal
from kohakuriver.system.cgroup import Cgroups
from kohakuriver.system.process_connection import Reactor
from kohakuriver.system.process_supervisor import supervise
from kohakuriver.system.process_workload import KILLED, Workload

_MESSAGE_BYTES = 1 << 16
_IDLE_LIMIT = 16
_SPARE_DESCRIPTORS = 16
_ENDURED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGCHLD,
)

Starter = Callable[[EngineFailed | None], None]


class _Child:
    """A supervisor that this keeper forked, the channel to it, and what it looks after just now."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid, self.channel, self.is_silent = pid, channel, False
        self.workload: Workload | None = None


class Nursery:
    """Every supervisor of this keeper; `changed` hears of each workload that ended, `told_to_leave` is SIGTERM's."""

    def __init__(self, reactor: Reactor, cgroups: Cgroups | None, changed: Callable[[Workload], None]) -> None:
        self._reactor, self._cgroups, self._changed = reactor, cgroups, changed
        self._children: dict[int, _Child] = {}
        self._idle: list[_Child] = []
        self._starters: dict[tuple[int, int], list[Starter]] = {}
        self._unsettled: dict[tuple[int, int], Workload] = {}
        self._found: set[tuple[int, int]] = set()
        self.told_to_leave = False
        self._listen_to_signals()

    def _listen_to_signals(self) -> None:
        """Supervisors inherit this: what is sent to one by mistake must not end its workload."""
        wakeup, writer = os.pipe()
        for descriptor in (wakeup, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in _ENDURED:
            signal.signal(number, lambda number, frame: None)
        self._reactor.watch(wakeup, lambda mask: self._woken(os.read(wakeup, _MESSAGE_BYTES)))

    @property
    def unsettled(self) -> bool:
        """Whether `tick` should be called again soon."""
        return bool(self._unsettled)

    def start(self, workload: Workload, answer: Starter) -> None:
        """Start it unless it has been, and answer None or why it cannot be."""
        if "started_at" in workload.story or workload.ended:
            return answer(None)
        self._starters.setdefault(workload.key, []).append(answer)
        if not workload.supervised:
            self._assign(workload)

    def adopt(self, workload: Workload) -> None:
        """Take over one that an earlier keeper claimed."""
        if workload.claimed and not workload.ended:
            workload.supervised = True
            self._found.add(workload.key)
            self._unsettled[workload.key] = workload

    def tick(self) -> None:
        """Look again at those of which it is not known whether anybody looks after them."""
        for workload in list(self._unsettled.values()):
            self._settle(workload)

    def kill_supervisor(self, workload: Workload) -> None:
        """The last resort, when it does not come to an end."""
        workload.reread()
        process = workload.story.get("supervisor", [0, 0])
        process_calls.signal_all(lambda: [process[0]] if process_calls.is_alive(process) else [], signal.SIGKILL)

    # ---- supervisors of our own

    def _assign(self, workload: Workload) -> None:
        """Give it to an idle supervisor or to a new one."""
        try:
            child = self._idle.pop() if self._idle else self._fork()
            journal = workload.claim()
        except OSError as error:
            return self._answer_starters(
                workload, EngineFailed(f"no process can be made: {os.strerror(error.errno or 0)}", retry_elsewhere=True)
            )
        workload.supervised, child.workload = True, workload
        with contextlib.suppress(OSError):  # it has just died: we shall hear of that
            socket.send_fds(child.channel, [workload.directory.encode()], [journal])
        os.close(journal)

    def _fork(self) -> _Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                last = max(self._reactor.last_descriptor, theirs.fileno()) + _SPARE_DESCRIPTORS
                supervise(theirs, self._cgroups, last)
        ours.setblocking(False)
        child = self._children[pid] = _Child(pid, ours)
        self._reactor.watch(ours.fileno(), lambda mask: self._listen(child))
        return child

    def _listen(self, child: _Child) -> None:
        if not self._hear(child):  # it is about to die, or has: the rest when we reap it
            self._reactor.unwatch(child.channel.fileno())
            child.is_silent = True

    def _hear(self, child: _Child) -> bool:
        """Take one message; False when there is none."""
        try:
            message = child.channel.recv(_MESSAGE_BYTES)
        except OSError:
            message = b""
        if not message:
            return False
        if child.workload is not None:
            self._told(child, child.workload, message)
        return True

    def _told(self, child: _Child, workload: Workload, message: bytes) -> None:
        workload.story.update(process_journal.parse(message + b"\n"))
        if "failed" in workload.story:
            self._rest(child, workload)
            self._failed(workload)
        elif workload.ended:
            self._rest(child, workload)
            self._answer_starters(workload, None)
            self._changed(workload)
        else:
            self._answer_starters(workload, None)

    def _rest(self, child: _Child, workload: Workload) -> None:
        """It can take another workload; too many idle ones are let go."""
        workload.supervised, child.workload = False, None
        if len(self._idle) < _IDLE_LIMIT:
            self._idle.append(child)
        else:
            child.channel.shutdown(socket.SHUT_RDWR)

    def _woken(self, numbers: bytes) -> None:
        self.told_to_leave = self.told_to_leave or signal.SIGTERM in numbers
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid in self._children:
                    self._bury(self._children.pop(pid))

    def _bury(self, child: _Child) -> None:
        while self._hear(child):
            pass
        if not child.is_silent:
            self._reactor.unwatch(child.channel.fileno())
        child.channel.close()
        if child in self._idle:
            self._idle.remove(child)
        if child.workload is not None:
            self._unsettled[child.workload.key] = child.workload

    # ---- workloads without a supervisor of our own

    def _settle(self, workload: Workload) -> None:
        """Find out who looks after it, and if nobody does, how it stands."""
        supervisor_lives = workload.supervisor_lives()
        workload.reread()
        if not supervisor_lives and self._conclude(workload):
            self._unsettled.pop(workload.key, None)
            self._found.discard(workload.key)
        elif supervisor_lives and "started_at" in workload.story:
            self._answer_starters(workload, None)
            if self._watch(workload):
                del self._unsettled[workload.key]

    def _watch(self, workload: Workload) -> bool:
        """Be woken when a supervisor that is not our child dies, which it does after its workload."""
        process = workload.story["supervisor"]
        try:
            handle = os.pidfd_open(process[0])
        except ProcessLookupError:
            return False
        if not process_calls.is_alive(process):
            os.close(handle)
            return False

        def died(_: int) -> None:
            self._reactor.unwatch(handle)
            os.close(handle)
            self._unsettled[workload.key] = workload

        self._reactor.watch(handle, died)
        return True

    def _conclude(self, workload: Workload) -> bool:
        """Its supervisor is dead: bring it to the end it deserves; False when that takes longer."""
        story = workload.story
        if not workload.ended and "failed" not in story:
            if "begun_at" not in story:
                self._never_ran(workload)
                return True
            workload.kill()
            if self._end_strays() or workload.group.pids():
                return False
            story.setdefault("started_at", story["begun_at"])
            workload.record_end(KILLED)
        workload.supervised = False
        if "failed" in story:
            self._failed(workload)
        else:
            self._answer_starters(workload, None)
            self._changed(workload)
        return True

    def _never_ran(self, workload: Workload) -> None:
        """It was given to a supervisor that died before it began: give it to another, or tell who asked."""
        workload.unclaim()
        workload.supervised = False
        if workload.key not in self._starters:
            return
        workload.restarts += 1
        if workload.restarts < 3:
            self._assign(workload)
        else:
            self._answer_starters(workload, EngineFailed("its supervisors die at once", retry_elsewhere=True))

    def _failed(self, workload: Workload) -> None:
        """The program could not be started: say so to who asked; it may be tried again."""
        story = workload.story
        error = EngineFailed(story["failed"], retry_elsewhere=story.get("elsewhere", False))
        workload.unclaim()
        self._answer_starters(workload, error)

    def _answer_starters(self, workload: Workload, outcome: EngineFailed | None) -> None:
        for starter in self._starters.pop(workload.key, []):
            starter(outcome)

    def _end_strays(self) -> bool:
        """Without control groups, kill our children that are no supervisors: orphans of a dead one."""
        if self._cgroups is not None:
            return False
        strays = set(process_calls.children(os.getpid())) - self._children.keys()
        process_calls.signal_all(lambda: strays, signal.SIGKILL)
        return bool(strays)
