"""Processes started beside a workload of the process engine: with its environment, in its control groups."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import kohakuriver
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.execution import ERR, OUT, ExecSpec
from kohakuriver.system import process_calls
from kohakuriver.system.hanging_up import MARK, hang_up

_BLOCK_BYTES = 1 << 16
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from kohakuriver.system.process_exec_start import main; main(int(sys.argv[2]))"
)


@dataclass(frozen=True, slots=True)
class Beside:
    """The workload: its main process (pid, start time), its environment and where it works."""

    main: list[int]
    env: Mapping[str, str]
    working_dir: str


def begin_exec(beside: Beside, spec: ExecSpec, mark: str) -> "ProcessExec":
    """Start a process beside a workload; `mark` says whose it is, should we be killed. Raises EngineFailed when none can be made.

    It dies with the thread that calls this, which must therefore be the program's main one.
    """
    ends = _terminal(spec) if spec.tty else _pipes()
    request, told = os.pipe()
    try:
        os.write(told, _order(beside, spec, mark))
        os.close(told)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(Path(kohakuriver.__file__).parents[1])]
            + [str(request)],
            stdin=ends.theirs[0],
            stdout=ends.theirs[1],
            stderr=ends.theirs[2],
            pass_fds=(request,),
            start_new_session=True,
            env={},
        )
    except OSError as error:
        for descriptor in {*ends.ours, *ends.outputs.values()}:
            os.close(descriptor)
        raise EngineFailed(f"no process can be made: {os.strerror(error.errno or 0)}", retry_elsewhere=True) from None
    finally:
        for descriptor in {request, *ends.theirs}:
            os.close(descriptor)
    return ProcessExec(child, ends, beside.main)


def _order(beside: Beside, spec: ExecSpec, mark: str) -> bytes:
    order = {
        "argv": list(spec.argv),
        "env": {**beside.env, **spec.env},
        "working_dir": spec.working_dir or beside.working_dir,
        "user": spec.user,
        "tty": spec.tty,
        "like": beside.main[0],
        "mark": [MARK, mark],
    }
    data = json.dumps(order).encode()
    if len(data) > 60_000:  # what a pipe holds without a reader
        raise EngineFailed("the command and its environment are too long")
    return data


@dataclass(slots=True)
class _Ends:
    """Descriptors: the child's three, our input (if it is still open), and our outputs by kind."""

    theirs: tuple[int, int, int]
    ours: list[int]
    outputs: dict[int, int]


def _terminal(spec: ExecSpec) -> _Ends:
    master, slave = pty.openpty()
    _set_size(master, spec.rows, spec.columns)
    os.set_blocking(master, False)
    return _Ends((slave, slave, slave), [master], {OUT: master})


def _pipes() -> _Ends:
    (stdin, give), (take, stdout), (take_err, stderr) = os.pipe(), os.pipe(), os.pipe()
    for descriptor in (give, take, take_err):
        os.set_blocking(descriptor, False)
    return _Ends((stdin, stdout, stderr), [give], {OUT: take, ERR: take_err})


class ProcessExec:
    """One such process (an `ExecSession`); it also ends when the workload does."""

    def __init__(self, child: "subprocess.Popen[bytes]", ends: _Ends, main: list[int]) -> None:
        self._child, self._ends = child, ends
        self._leader = process_calls.identity(child.pid)
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[int] = self._loop.create_future()
        self._waits: set[asyncio.Future[None]] = set()
        self._watched: list[int] = []
        self._watch(child.pid, self._child_ended)
        self._watch(main[0], self._workload_ended)
        self._tty = ends.theirs[0] == ends.theirs[1]

    async def read(self) -> tuple[int, bytes] | None:
        while self._ends.outputs:
            for kind, descriptor in list(self._ends.outputs.items()):
                with suppress(BlockingIOError):
                    if data := _read(descriptor):
                        return kind, data
                    self._drop_output(kind)
            if self._ends.outputs:
                await self._readable()
        return None

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._ends.ours:
            try:
                view = view[os.write(self._ends.ours[0], view) :]
            except BlockingIOError:
                await self._writable(self._ends.ours[0])
            except OSError:
                return

    async def write_eof(self) -> None:
        if self._tty:
            await self.write(b"\x04")
        else:
            self._drop_input()

    async def resize(self, rows: int, columns: int) -> None:
        if self._tty and self._ends.ours:
            _set_size(self._ends.ours[0], rows, columns)

    async def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._child.send_signal(number)

    async def wait(self) -> int:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        for kind in list(self._ends.outputs):
            self._drop_output(kind)
        self._drop_input()
        for ready in self._waits:
            _settle(ready)
        await hang_up(self._leader)
        await self.wait()
        while self._watched:  # whoever comes here first; by the second time the numbers may be somebody else's
            handle = self._watched.pop()
            self._loop.remove_reader(handle)
            os.close(handle)

    # ---- descriptors

    def _drop_output(self, kind: int) -> None:
        descriptor = self._ends.outputs.pop(kind)
        self._loop.remove_reader(descriptor)
        if descriptor not in self._ends.ours:
            os.close(descriptor)

    def _drop_input(self) -> None:
        while self._ends.ours:
            descriptor = self._ends.ours.pop()
            self._loop.remove_writer(descriptor)
            os.close(descriptor)

    def _wait_for_descriptors(self) -> "asyncio.Future[None]":
        """A future that also comes true when all are closed."""
        ready: asyncio.Future[None] = self._loop.create_future()
        self._waits.add(ready)
        return ready

    async def _readable(self) -> None:
        ready = self._wait_for_descriptors()
        for descriptor in self._ends.outputs.values():
            self._loop.add_reader(descriptor, _settle, ready)
        try:
            await ready
        finally:
            self._waits.discard(ready)
            # Not of those closed meanwhile, whose numbers others may have.
            for descriptor in self._ends.outputs.values():
                self._loop.remove_reader(descriptor)

    async def _writable(self, descriptor: int) -> None:
        ready = self._wait_for_descriptors()
        self._loop.add_writer(descriptor, _settle, ready)
        try:
            await ready
        finally:
            self._waits.discard(ready)
            if descriptor in self._ends.ours:
                self._loop.remove_writer(descriptor)

    # ---- ends

    def _watch(self, pid: int, ended: Callable[[], None]) -> None:
        with suppress(ProcessLookupError):
            self._watched.append(os.pidfd_open(pid))
            self._loop.add_reader(self._watched[-1], self._notice, self._watched[-1], ended)

    def _notice(self, handle: int, ended: Callable[[], None]) -> None:
        self._loop.remove_reader(handle)
        ended()

    def _child_ended(self) -> None:
        code = self._child.wait()
        if not self._over.done():
            self._over.set_result(code if code >= 0 else 128 - code)

    def _workload_ended(self) -> None:
        process_calls.signal_all(lambda: process_calls.session_members(self._leader[0]), signal.SIGKILL)


def _read(descriptor: int) -> bytes:
    """What is there; empty at the end, which of a terminal is an error."""
    try:
        return os.read(descriptor, _BLOCK_BYTES)
    except BlockingIOError:
        raise
    except OSError:
        return b""


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _set_size(descriptor: int, rows: int, columns: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
