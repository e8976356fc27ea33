"""Waiting until tasks have ended, and the exit code that a task's end becomes."""

from collections.abc import Iterator, Sequence

from kohakuriver.client.command import Order
from kohakuriver.client.pace import Patience, Pauses
from kohakuriver.client.progress import ProgressLine
from kohakuriver.client.task_view import status_word
from kohakuriver.model.codec import JsonObject, Snowflake
from kohakuriver.model.errors import Unavailable
from kohakuriver.model.host_api import TASK_SHOW, TaskId
from kohakuriver.model.lifecycle import FINAL, Status
from kohakuriver.model.task import RetryOn, Task

SIGNALLED = 128  # as a shell counts a program that a signal ended


def has_ended(task: Task) -> bool:
    """Whether nothing more will become of it by itself; a lost task may come back, but nobody knows when."""
    return task.status in FINAL or (task.status is Status.LOST and not task.may_retry(RetryOn.LOSS))


def exit_code_of(task: Task) -> int:
    """The task's own exit code; 128 + the signal that ended it; 1 when it failed without either."""
    if task.status is Status.COMPLETED:
        return 0
    if task.signal:
        return SIGNALLED + task.signal
    return task.exit_code if task.exit_code and 0 < task.exit_code < 256 else 1


def first_failure(tasks: Sequence[Task]) -> int:
    """The exit code of the first task that did not end well, 0 when all did."""
    return next((code for code in map(exit_code_of, tasks) if code), 0)


def wait_for(order: Order, task_ids: Sequence[Snowflake]) -> tuple[list[Task], list[JsonObject]]:
    """The tasks once all have ended, in the order given, and the host's answers as they came.

    A host that goes away in the meantime is waited for; raises RiverError when that lasts too long.
    """
    ended: dict[Snowflake, tuple[Task, JsonObject]] = {}
    with ProgressLine(order.notes, order.screen) as line:
        _wait_for_all(order, task_ids, ended, line)
    found = [ended[task_id] for task_id in task_ids]
    return [task for task, _ in found], [plain for _, plain in found]


def _wait_for_all(
    order: Order,
    task_ids: Sequence[Snowflake],
    ended: dict[Snowflake, tuple[Task, JsonObject]],
    line: ProgressLine,
) -> None:
    told: dict[Snowflake, str] = {}
    patience, pauses = Patience(order.clock, order.notes.warn), Pauses(order.clock)
    while waiting := [task_id for task_id in task_ids if task_id not in ended]:
        try:
            for task_id, task, plain in _looked_at(order, waiting):
                patience.well()
                _tell(order, task, told, line)
                if has_ended(task):
                    ended[task_id] = task, plain
        except Unavailable as error:
            patience.bear(error)
            continue
        if len(ended) < len(set(task_ids)):
            pauses.pause()


def _looked_at(order: Order, task_ids: Sequence[Snowflake]) -> Iterator[tuple[Snowflake, Task, JsonObject]]:
    for task_id in task_ids:
        plain = order.session.ask(TASK_SHOW, TaskId(task_id=task_id))
        yield task_id, order.session.understand(TASK_SHOW, plain), plain


def _tell(order: Order, task: Task, told: dict[Snowflake, str], progress: ProgressLine) -> None:
    """What changed, for a person who waits; how far an image is changes every second, and so stays on one line."""
    if task.status is Status.ASSIGNING and task.reason:
        return progress.show(f"{task.task_id} {task.reason}")
    where = f" on {task.assigned_node}" if task.status is Status.RUNNING else ""
    line = f"{task.task_id} {status_word(task)}{where}{f': {task.reason}' if task.reason else ''}"
    if told.get(task.task_id) == line:
        return
    told[task.task_id] = line
    progress.clear()
    if task.status is Status.LOST and has_ended(task):
        order.notes.warn(f"{task.task_id} is lost: {task.assigned_node} is silent; wait again for it to come back")
    else:
        order.notes.hint(line)
