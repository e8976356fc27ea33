"""The keeper: one small process per runner that knows its workloads, forks their supervisors and answers the engine.

It may die at any moment: supervisors go on, and the next keeper finds everything in the workloads' directories. It
speaks JSON lines on a unix socket: `{"id", "do", ...}` is answered by `{"id", "value"}` or `{"id", "error"}`; who is
connected also hears `{"changed": [task_id, attempt]}`. It leaves when nobody is connected and nothing runs.
"""

import contextlib
import fcntl
import functools
import gc
import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound, RiverError
from kohakuriver.system import cgroup, process_calls, process_workload
from kohakuriver.system.cgroup import Cgroups
from kohakuriver.system.process_connection import Connection, Message, Reactor
from kohakuriver.system.process_nursery import Nursery
from kohakuriver.system.process_workload import Workload

SOCKET_NAME, LOCK_NAME, LOG_NAME, WORKLOADS_NAME = "keeper.sock", "keeper.lock", "keeper.log", "workloads"
_FIRST_VISIT_SECONDS = 15.0
_TICK_SECONDS = 0.01
_KILL_AGAIN_SECONDS = 0.2
_KILL_SUPERVISOR_SECONDS = 10.0
_LOCK_SECONDS = 10.0

Answer = Callable[[object], None]


class _Removal:
    """A workload that is to go once it has ended, and what waits for that."""

    def __init__(self, workload: Workload) -> None:
        self.workload, self.waiting = workload, list[Callable[[], None]]()
        self.begun = self.last_kill = time.monotonic()


class Keeper:
    """Serve until nobody needs it; `root` is the directory of one runner."""

    def __init__(self, root: str, listener: socket.socket, cgroups: Cgroups | None) -> None:
        self._root, self._cgroups, self._listener = f"{root}/{WORKLOADS_NAME}", cgroups, listener
        self._reactor = Reactor()
        self._reactor.watch(listener.fileno(), lambda mask: self._accept())
        self._nursery = Nursery(self._reactor, cgroups, self._changed)
        self._connections: list[Connection] = []
        self._workloads: dict[tuple[int, int], Workload] = {}
        self._removals: dict[tuple[int, int], _Removal] = {}
        self._leave_at: float | None = time.monotonic() + _FIRST_VISIT_SECONDS
        for workload in process_workload.load_all(self._root, cgroups):
            self._workloads[workload.key] = workload
            self._nursery.adopt(workload)

    def serve(self) -> None:
        """Return when nobody is connected and nothing runs, or on SIGTERM."""
        while self._is_needed():
            hurry = self._nursery.unsettled or self._removals or self._leave_at is not None
            self._reactor.run_once(_TICK_SECONDS if hurry else None)
            self._nursery.tick()
            for removal in list(self._removals.values()):
                self._press(removal)

    def _is_needed(self) -> bool:
        if self._nursery.told_to_leave:
            return False
        if self._connections:
            return True
        if self._leave_at is not None and time.monotonic() < self._leave_at:
            return True
        self._leave_at = None
        return any(workload.supervised for workload in self._workloads.values())

    def _accept(self) -> None:
        self._leave_at = None
        with contextlib.suppress(OSError):
            self._connections.append(
                Connection(self._listener.accept()[0], self._reactor, self._heard, self._connections.remove)
            )

    def _changed(self, workload: Workload) -> None:
        for connection in list(self._connections):
            connection.send({"changed": workload.key})

    def _heard(self, connection: Connection, request: Message) -> None:
        answer = functools.partial(connection.answer, request["id"])
        try:
            _DOINGS[request["do"]](self, request, answer)
        except RiverError as error:
            answer(error)

    # ---- one method per request

    def _describe(self, request: Message, answer: Answer) -> None:
        groups = self._cgroups
        answer(
            {
                "cgroup": groups.version if groups else 0,
                "memory": groups is not None and groups.limits_memory,
                "cpu": groups is not None and groups.limits_cpu,
            }
        )

    def _create(self, request: Message, answer: Answer) -> None:
        plan = request["plan"]
        key = (plan["task_id"], plan["attempt"])
        if key in self._workloads:
            return answer(None)
        for other in self._workloads.values():
            if other.plan["name"] == plan["name"]:
                if other.key > key:
                    raise Conflict(f"workload {key[0]} has a newer attempt already")
                return self._begin_removal(other, lambda: self._create(request, answer))
        try:
            self._workloads[key] = process_workload.create(self._root, plan, self._cgroups)
        except OSError as error:
            text = f"the workload cannot be written down: {os.strerror(error.errno or 0)}"
            return answer(EngineFailed(text, retry_elsewhere=True))
        answer(None)

    def _start(self, request: Message, answer: Answer) -> None:
        self._nursery.start(self._find(request), answer)

    def _signal(self, request: Message, answer: Answer) -> None:
        workload = self._find(request)
        if workload.look()["phase"] in ("running", "paused"):
            workload.signal(request["number"])
        answer(None)

    def _pause(self, request: Message, answer: Answer) -> None:
        workload = self._find_running(request)
        workload.freeze()
        self._changed(workload)
        answer(None)

    def _resume(self, request: Message, answer: Answer) -> None:
        workload = self._find_running(request)
        workload.thaw()
        self._changed(workload)
        answer(None)

    def _observe(self, request: Message, answer: Answer) -> None:
        answer(self._find(request).look())

    def _observe_all(self, request: Message, answer: Answer) -> None:
        answer([workload.look() for workload in self._workloads.values()])

    def _remove(self, request: Message, answer: Answer) -> None:
        workload = self._workloads.get(tuple(request["key"]))
        if workload is None:
            return answer(None)
        self._begin_removal(workload, lambda: answer(None))

    # ---- what they share

    def _find(self, request: Message) -> Workload:
        task_id, attempt = request["key"]
        workload = self._workloads.get((task_id, attempt))
        if workload is None:
            raise NotFound(f"the engine has no workload {task_id} attempt {attempt}")
        return workload

    def _find_running(self, request: Message) -> Workload:
        workload = self._find(request)
        if workload.look()["phase"] not in ("running", "paused"):
            raise Conflict(f"workload {workload.key[0]} is not running")
        return workload

    def _begin_removal(self, workload: Workload, then: Callable[[], None]) -> None:
        removal = self._removals.get(workload.key)
        if removal is None:
            removal = self._removals[workload.key] = _Removal(workload)
            if workload.supervised and not workload.ended:
                workload.kill()
        removal.waiting.append(then)
        self._press(removal)

    def _press(self, removal: _Removal) -> None:
        """Remove it if it has ended; otherwise insist from time to time."""
        workload, now = removal.workload, time.monotonic()
        if workload.ended or not workload.supervised:
            del self._removals[workload.key], self._workloads[workload.key]
            workload.delete()
            for then in removal.waiting:
                then()
        elif now - removal.last_kill > _KILL_AGAIN_SECONDS:
            removal.last_kill = now
            workload.kill()
            if now - removal.begun > _KILL_SUPERVISOR_SECONDS:
                self._nursery.kill_supervisor(workload)


_DOINGS: dict[str, Callable[[Keeper, Message, Answer], None]] = {
    "describe": Keeper._describe,
    "create": Keeper._create,
    "start": Keeper._start,
    "signal": Keeper._signal,
    "pause": Keeper._pause,
    "resume": Keeper._resume,
    "observe": Keeper._observe,
    "observe_all": Keeper._observe_all,
    "remove": Keeper._remove,
}


def main(root: str, kind: str) -> None:
    """Become the keeper of a runner's directory, in the background; return, in the foreground, once it answers.

    `kind` is "groups" for control groups where the machine has them, or "tree" for none.
    """
    ready, writer = os.pipe()
    if os.fork() != 0:
        os.close(writer)
        sys.exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    lock = os.open(f"{root}/{LOCK_NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(lock)
        _serve(root, writer, kind)
    finally:
        os.close(lock)


def _wait_for(lock: int) -> None:
    """One keeper at a time; a dead one's supervisors may hold its lock for the first moment of their lives."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit("another keeper serves this directory and does not answer")
            time.sleep(0.005)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())  # for whoever wonders who it is


def _serve(root: str, ready: int, kind: str) -> None:
    os.makedirs(f"{root}/{WORKLOADS_NAME}", exist_ok=True)
    cgroups = cgroup.find(scope_of(root)) if kind == "groups" else None
    if cgroups is None:
        process_calls.become_subreaper()
    with _listen(root) as listener:
        keeper = Keeper(root, listener, cgroups)
        _write_to_log(f"{root}/{LOG_NAME}")
        os.write(ready, b"+")
        os.close(ready)
        gc.collect()
        gc.freeze()
        keeper.serve()
        os.unlink(f"{root}/{SOCKET_NAME}")
    if cgroups is not None:
        cgroups.close()


def scope_of(root: str) -> str:
    """The name under which the control groups of a runner's directory lie."""
    return hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:12]


def _listen(root: str) -> socket.socket:
    """Listen in the directory; by way of its descriptor, for the name of a socket may only be 107 bytes long."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{root}/{SOCKET_NAME}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
    finally:
        os.close(directory)
    os.chmod(f"{root}/{SOCKET_NAME}", 0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _write_to_log(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
