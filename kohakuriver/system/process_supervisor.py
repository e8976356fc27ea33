"""The supervisor: the process that starts a workload, copies its output and knows how it ended.

It is a fork of the keeper and outlives it. It looks after one workload at a time and then waits for another: forking
Python for each would cost more than all the rest. What it is sent is a directory's name with its journal's descriptor.
"""

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from kohakuriver.system import process_calls, process_journal
from kohakuriver.system.cgroup import Cgroups, Group, Limits
from kohakuriver.system.process_log import LogFile
from kohakuriver.system.process_plan import Plan, Story
from kohakuriver.system.process_tree import TreeGroup

_BLOCK_BYTES = 1 << 16
_MESSAGE_BYTES = 1 << 12
_IDLE_SECONDS = 10.0
_RETRY_SECONDS = 0.2
_IGNORED_BY_PYTHON = (int(signal.SIGPIPE), int(signal.SIGXFSZ))
_OTHER_NODES_MAY_DO = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
)


class NotStarted(Exception):
    """The program cannot be started: why in one line, and whether another node might do better."""

    def __init__(self, text: str, elsewhere: bool = False) -> None:
        super().__init__(text)
        self.elsewhere = elsewhere


def not_started(what: str, error: OSError) -> NotStarted:
    """The failure of one step, in words."""
    return NotStarted(f"{what}: {os.strerror(error.errno or 0)}", error.errno in _OTHER_NODES_MAY_DO)


def supervise(channel: socket.socket, cgroups: Cgroups | None, last_descriptor: int) -> NoReturn:
    """Do everything in this process, a fresh fork of the keeper, and leave it; `channel` leads to the keeper."""
    try:
        gc.disable()  # the keeper's objects are only on loan: collecting them would close our descriptors
        signal.set_wakeup_fd(-1)
        os.closerange(3, channel.fileno())
        os.closerange(channel.fileno() + 1, last_descriptor + 1)
        os.setsid()
        os.umask(0o022)
        process_calls.become_subreaper()
        _serve(channel, cgroups)
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        os._exit(0 if sys.exc_info()[0] is None else 1)


def _serve(channel: socket.socket, cgroups: Cgroups | None) -> None:
    wakeup, writer = os.pipe()
    for descriptor in (wakeup, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    me = process_calls.identity(os.getpid())
    waiting = select.poll()
    waiting.register(channel.fileno(), select.POLLIN)
    while waiting.poll(_IDLE_SECONDS * 1000):
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
        if not message:  # the keeper is gone
            return
        directory = message.decode()
        group = cgroups.group(os.path.basename(directory)) if cgroups is not None else TreeGroup(me, [])
        Supervision(directory, descriptors[0], channel, group).run(me, wakeup)


class Supervision:
    """One workload, from its plan to its exit."""

    def __init__(self, directory: str, journal: int, channel: socket.socket, group: Group) -> None:
        self._plan = _read_plan(directory)
        self._journal, self._channel, self._group = journal, channel, group
        self._files: list[LogFile] = []
        self._logs: dict[int, LogFile] = {}
        self._main = 0
        self._status: int | None = None
        self._finished_at = 0.0

    def run(self, supervisor: list[int], wakeup: int) -> None:
        """Return when the workload has ended and everything is told."""
        os.set_inheritable(self._journal, False)
        try:
            self._start(supervisor)
        except NotStarted as failure:
            self._remove_group()
            self._tell({"failed": str(failure), "elsewhere": failure.elsewhere})
        else:
            self._copy_until_end(wakeup)
            self._end_what_is_left()
            self._drain()
            self._tell(self._ending())
        finally:
            self._close()

    def _start(self, supervisor: list[int]) -> None:
        program = _find_program(self._plan)
        self._open_logs()
        try:
            self._group.make(Limits(self._plan["memory_bytes"], self._plan["pids_limit"], self._plan["cpu_count"]))
        except OSError as error:
            raise not_started("the control group of the workload cannot be made", error) from None
        started_at = time.time()
        self._begin(supervisor, started_at)
        self._main = self._spawn(program)
        line: Story = {"main": process_calls.identity(self._main), "started_at": started_at}
        with contextlib.suppress(OSError):  # on a full disk it is known less exactly
            process_journal.tell(self._journal, line)
        self._tell_keeper(line)

    def _begin(self, supervisor: list[int], started_at: float) -> None:
        """Write down that from now on it may have run, whatever happens to us."""
        line: Story = {"boot": process_calls.boot_id(), "supervisor": supervisor, "begun_at": started_at}
        try:
            process_journal.tell(self._journal, line)
        except OSError as error:
            raise not_started("the start of the workload cannot be written down", error) from None

    def _open_logs(self) -> None:
        directory, limit = self._plan["log_directory"], self._plan["log_limit_bytes"]
        marker = self._plan["cut_marker"].encode()
        try:
            os.makedirs(directory, exist_ok=True)
            self._files = [LogFile(f"{directory}/{name}", limit, marker) for name in self._plan["log_names"]]
        except OSError as error:
            raise not_started(f"the log files cannot be made in {directory!r}", error) from None

    def _spawn(self, program: str) -> int:
        """Start the program in a session of its own; what it inherits from us we put on and take off again."""
        pipes = [os.pipe() for _ in self._files]
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, writer, number) for number, (_, writer) in enumerate(pipes, start=1)]
        for (reader, _), file in zip(pipes, self._files, strict=True):
            os.set_blocking(reader, False)
            self._logs[reader] = file
        try:
            with _dressed_for(self._plan), _inside(self._group):
                return _spawn(program, self._plan, actions)
        finally:
            for _, writer in pipes:
                os.close(writer)

    def _copy_until_end(self, wakeup: int) -> None:
        poll = select.poll()
        for descriptor in (wakeup, *self._logs):
            poll.register(descriptor, select.POLLIN)
        while self._status is None:
            for descriptor, _ in poll.poll():
                if descriptor == wakeup:
                    os.read(wakeup, 4096)
                    self._reap()
                elif not self._copy(descriptor):
                    poll.unregister(descriptor)

    def _copy(self, descriptor: int) -> bool:
        """Copy one block; False at the end of the output; raises BlockingIOError when there is nothing just now."""
        data = os.read(descriptor, _BLOCK_BYTES)
        self._logs[descriptor].write(data)
        return bool(data)

    def _reap(self) -> None:
        """Take the ends of the main process and of orphans that became ours."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self._main:
                    self._status, self._finished_at = ended[1], time.time()

    def _end_what_is_left(self) -> None:
        pause_seconds = 0.0005
        while self._group.pids():
            self._group.kill()
            time.sleep(pause_seconds)
            self._reap()
            pause_seconds = min(pause_seconds * 2, 0.1)

    def _drain(self) -> None:
        """Copy what lies in the pipes; nobody writes any more, or only somebody outside who was given the pipe."""
        for descriptor, file in self._logs.items():
            with contextlib.suppress(BlockingIOError):
                while self._copy(descriptor):
                    pass
            file.finish()

    def _ending(self) -> Story:
        code, number = os.waitstatus_to_exitcode(self._status or 0), None
        if code < 0:
            code, number = 128 - code, -code
        oom_killed = code != 0 and self._group.oom_kills() > 0
        self._remove_group()
        return {"exit": (code, number, oom_killed), "finished_at": self._finished_at}

    def _remove_group(self) -> None:
        """Try for a moment: the kernel lets go of the dead a little later than of their exit codes."""
        for _ in range(50):
            if self._group.remove():
                return
            time.sleep(0.001)

    def _tell(self, line: Story) -> None:
        """Write it down before anybody hears it; on a full disk tell it, and stay until it can be written down."""
        told = False
        while True:
            try:
                process_journal.tell(self._journal, line)
                break
            except OSError:
                if not told:
                    self._tell_keeper(line)
                told = True
                if os.fstat(self._journal).st_nlink == 0:  # removed: nobody will ask
                    break
                time.sleep(_RETRY_SECONDS)
        if not told:
            self._tell_keeper(line)

    def _tell_keeper(self, line: Story) -> None:
        with contextlib.suppress(OSError):  # it may be dead; the next one reads the journal
            self._channel.send(json.dumps(line).encode())

    def _close(self) -> None:
        for reader in self._logs:
            os.close(reader)
        for file in self._files:
            file.close()
        os.close(self._journal)


def _spawn(program: str, plan: Plan, actions: list[tuple[Any, ...]]) -> int:
    try:
        return os.posix_spawn(
            program,
            plan["command"],
            plan["env"],
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except OSError as error:
        raise not_started(f"the program {plan['command'][0]!r} cannot be started", error) from None


@contextlib.contextmanager
def _inside(group: Group) -> Iterator[None]:
    """Be in the workload's group while its first process is born there."""
    try:
        group.join()
    except OSError as error:
        group.leave()
        raise not_started("the workload cannot join its control group", error) from None
    try:
        yield
    finally:
        group.leave()


@contextlib.contextmanager
def _dressed_for(plan: Plan) -> Iterator[None]:
    """Have the working directory and the CPUs of the workload, which a new process takes from its parent."""
    mine = os.sched_getaffinity(0)
    try:
        _pin(plan)
        _enter(plan["working_dir"])
        yield
    finally:
        os.chdir("/")
        if plan["cpu_ids"] or plan["numa_node"] is not None:
            os.sched_setaffinity(0, mine)
            process_calls.unbind_memory()


def _enter(working_dir: str) -> None:
    try:
        os.chdir(working_dir)
    except OSError as error:
        raise not_started(f"the working directory {working_dir!r} cannot be entered", error) from None


def _pin(plan: Plan) -> None:
    numa_node, cpus = plan["numa_node"], set(plan["cpu_ids"])
    try:
        if numa_node is not None:
            cpus = cpus or process_calls.numa_cpus(numa_node)
            process_calls.bind_memory(numa_node)
    except FileNotFoundError:
        raise NotStarted(f"this machine has no NUMA node {numa_node}") from None
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise not_started(f"the workload cannot be pinned to the CPUs {sorted(cpus)}", error) from None


def _read_plan(directory: str) -> Plan:
    with open(f"{directory}/plan", "rb") as file:
        plan: Plan = json.loads(file.read())
    return plan


def _find_program(plan: Plan) -> str:
    """The path of the program, found as a shell finds it with the PATH of the workload; raises NotStarted."""
    name, refusal = plan["command"][0], errno.ENOENT
    if "/" in name:
        return name  # relative to the working directory, which will be ours when it is looked for
    for directory in plan["env"].get("PATH", "").split(":"):
        path = os.path.join(plan["working_dir"], directory, name)
        try:
            if stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK):
                return path
            refusal = errno.EACCES
        except OSError:
            continue
    raise NotStarted(f"the program {name!r} cannot be started: {os.strerror(refusal)}")
