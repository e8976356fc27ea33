"""Reading a task's output, and following it byte by byte across broken connections, host restarts and attempts."""

import base64
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, TextIO

from kohakuriver.client.command import Order
from kohakuriver.client.output import json_text
from kohakuriver.client.pace import Patience, Pauses
from kohakuriver.client.session import Session
from kohakuriver.client.waiting import has_ended
from kohakuriver.model.errors import BadRequest, NodeUnreachable, NotFound, RiverError, Unavailable
from kohakuriver.model.host_api import TASK_SHOW, TASK_STDERR, TASK_STDOUT, TaskId
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.runner_api import OFFSET_HEADER, ReadOutput
from kohakuriver.model.task import Task

# Where in the output the answer begins; without it a tail that broke cannot be taken up again.
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one output; `offset` is that of the first, None while nobody knows it."""

    attempt: int | None
    offset: int | None
    data: bytes


Sink = Callable[[Chunk], None]


@dataclass(slots=True)
class Reader:
    """One output of one task being read; it counts the bytes, so that none is missed or doubled."""

    order: Order
    session: Session
    route: Route[ReadOutput, ByteStream]
    request: ReadOutput
    sink: Sink

    def read(self) -> int:
        """Pass on what there is (or comes, with `follow`) on one connection; returns how many bytes that were."""
        request, taken = self.request, 0
        with self.session.stream(self.route, request) as stream:
            start = stream.header(OFFSET_HEADER)
            if request.lines is not None:
                self.request = replace(request, lines=None, offset=int(start) if start and start.isdecimal() else -1)
            for data in stream.chunks():
                known = self.request.offset >= 0
                self.sink(Chunk(request.attempt, self.request.offset if known else None, data))
                taken += len(data)
                if known:
                    self.request = replace(self.request, offset=self.request.offset + len(data))
        return taken

    def follow(self) -> None:
        """Pass on everything until the task has ended; raises RiverError when it cannot be read to its end."""
        only, turn = self.request.attempt, Turn(self.order)
        while True:
            before = self.request
            try:
                task = self.session.call(TASK_SHOW, TaskId(task_id=self.request.task_id))
                turn.looked_at(task)
                if not task.attempt and not has_ended(task):
                    turn.pauses.pause()
                    continue
                attempt = self.request.attempt or max(task.attempt, 1)
                turn.last = has_ended(task) or task.attempt > attempt
                self.request = replace(self.request, attempt=attempt, follow=not turn.last)
                came = self._read_on()
            except Unavailable as error:
                turn.failed(error, progress=self.request.offset > before.offset)
                continue
            turn.patience.well()
            if turn.last and (only or not self._next_attempt(task)):
                return
            if not turn.last and not came:
                turn.pauses.pause()

    def _read_on(self) -> int:
        if self.request.offset < 0:
            raise RiverError("the connection broke, and the host did not say where the tail began: read it again")
        try:
            return self.read()
        except NotFound:  # an attempt that never ran has no output, or has none yet
            return 0

    def _next_attempt(self, task: Task) -> bool:
        """Go on to the attempt after this one, if there is one."""
        attempt = self.request.attempt or 0
        if task.attempt <= attempt:
            return False
        self.order.notes.warn(f"attempt {attempt} has ended; attempt {attempt + 1} of task {task.task_id} follows")
        self.request = replace(self.request, attempt=attempt + 1, offset=0, lines=None)
        return True


class Turn:
    """Where following stands: `last` once the task is known to have ended, so that the next read is the whole rest."""

    def __init__(self, order: Order) -> None:
        self._order, self._looked = order, False
        self.last = False
        self.patience = Patience(order.clock, order.notes.warn)
        self.pauses = Pauses(order.clock, most=POLL_SECONDS)

    def looked_at(self, task: Task) -> None:
        """The host answered; the first time, what came from it so far is proof that it is the right one."""
        if not self._looked:
            self.patience.well()
            if not task.attempt and not has_ended(task):
                self._order.notes.hint(f"{task.task_id} is {task.status}: its output follows when it runs")
        self._looked = True

    def failed(self, error: Unavailable, progress: bool) -> None:
        """Pause before the next try; raises the error when there is no hope."""
        if self.last and isinstance(error, NodeUnreachable):
            raise error
        if progress:
            self.patience.well()
        self.patience.bear(error)


def show_logs(order: Order) -> int:
    """Print one output, or with --both each to its own stream; returns 0."""
    request: ReadOutput = order.request(order.values())
    if order.has("both"):
        return _show_both(order, request)
    route = TASK_STDERR if order.has("stderr") else TASK_STDOUT
    reader = Reader(order, order.session, route, request, _sink(order, route, order.screen.out))
    if request.follow:
        reader.follow()
    elif not reader.read():
        _hint_where_there_is_some(order, request)
    return 0


def _show_both(order: Order, request: ReadOutput) -> int:
    if order.has("stderr"):
        raise BadRequest("--stderr: give it or --both, not both")
    with closing(order.session.another()) as second:
        out = Reader(order, order.session, TASK_STDOUT, request, _sink(order, TASK_STDOUT, order.screen.out))
        err_stream = order.screen.out if order.as_json else order.notes.err
        err = Reader(order, second, TASK_STDERR, request, _sink(order, TASK_STDERR, err_stream))
        if request.follow:
            _follow_together(out, err)
        else:
            out.read()
            err.read()
    return 0


def _follow_together(first: Reader, second: Reader) -> None:
    """Follow both at once; an error of either is raised when the first is done."""
    failed: list[Exception] = []

    def follow() -> None:
        try:
            second.follow()
        except (RiverError, OSError) as error:
            failed.append(error)

    other = Thread(target=follow, daemon=True)
    other.start()
    first.follow()
    other.join()
    for error in failed:
        raise error


def _sink(order: Order, route: Route[ReadOutput, ByteStream], out: TextIO) -> Sink:
    """Where the bytes go: as they are, or one JSON document a piece."""
    name = route.name.rpartition(".")[2]

    def write(chunk: Chunk) -> None:
        out.buffer.write(_document(name, chunk) if order.as_json else chunk.data)
        out.flush()

    return write


def _document(name: str, chunk: Chunk) -> bytes:
    """A line of JSON; bytes that are not UTF-8 text travel as base64."""
    told: dict[str, Any] = {"stream": name, "attempt": chunk.attempt, "offset": chunk.offset}
    try:
        told["text"] = chunk.data.decode()
    except UnicodeDecodeError:
        told["base64"] = base64.b64encode(chunk.data).decode()
    return f"{json_text(told)}\n".encode()


def _hint_where_there_is_some(order: Order, request: ReadOutput) -> None:
    if order.notes.for_a_person:
        task = order.session.call(TASK_SHOW, TaskId(task_id=request.task_id))
        elsewhere = task.stderr_bytes and not order.has("stderr")
        other = " (add --stderr for what it wrote there)" if elsewhere else ""
        order.notes.hint(f"nothing there; the task is {task.status}{other}")
