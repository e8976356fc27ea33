"""Output of tasks, as bytes: from the shared storage when it is there, else from the runner that has it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from kohakuriver.host.state import Host
from kohakuriver.host.store import tasks
from kohakuriver.model import host_api, runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NodeUnreachable, NotFound
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.runner_api import ReadOutput
from kohakuriver.model.task import Task
from kohakuriver.system.output_file import read_chunks
from kohakuriver.wire.serve import Handler, Streamed, on_stream

OFFSET_HEADER = "X-Kohakuriver-Offset"
NOT_STARTED = (Status.PENDING_APPROVAL, Status.PENDING, Status.ASSIGNING)
LOOK_AGAIN_SECONDS = 0.1
OnRunner = Route[ReadOutput, ByteStream]


def read_output(name: str, route: OnRunner) -> Handler[Host, ReadOutput, Streamed]:
    """The answer for one of a task's two outputs; `name` is its file, `route` where a runner gives it."""

    async def answer(host: Host, caller: Caller, asked: ReadOutput) -> Streamed:
        task = await _started(host, asked)
        attempt = asked.attempt or task.attempt
        if attempt < 1 or task.status in (Status.PENDING, Status.PENDING_APPROVAL, Status.REJECTED):
            return Streamed(_nothing(), {OFFSET_HEADER: "0"}) if asked.attempt is None else _missing(asked)
        if attempt > task.attempt:
            return _missing(asked)
        shared = _shared_file(host, task, attempt, name)
        ended = task.completed_at is not None or attempt < task.attempt
        if shared is not None and (ended or not asked.follow) and await asyncio.to_thread(shared.is_file):
            return Streamed(_chunks(shared, asked), {})
        return await _from_runner(host, task, route, _for_attempt(asked, attempt))

    return answer


def _missing(asked: ReadOutput) -> Streamed:
    raise NotFound(f"task {asked.task_id} has no attempt {asked.attempt}")


async def _started(host: Host, asked: ReadOutput) -> Task:
    """The task; when it is to be followed, not before it has a place."""
    while True:
        task = await host.db.read(lambda tx: tasks.get(tx, asked.task_id))
        if not asked.follow or asked.attempt or task.status not in NOT_STARTED:
            return task
        await host.clock.sleep(LOOK_AGAIN_SECONDS)


def _for_attempt(asked: ReadOutput, attempt: int) -> ReadOutput:
    return ReadOutput(
        task_id=asked.task_id, offset=asked.offset, lines=asked.lines, follow=asked.follow, attempt=attempt
    )


def _shared_file(host: Host, task: Task, attempt: int, name: str) -> Path | None:
    if not host.settings.shared_dir:
        return None
    return Path(host.settings.shared_dir).expanduser() / "logs" / str(task.task_id) / str(attempt) / name


async def _nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


async def _chunks(path: Path, asked: ReadOutput) -> AsyncIterator[bytes]:
    chunks = read_chunks(path, asked.offset, asked.lines)
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


async def _from_runner(host: Host, task: Task, route: OnRunner, asked: ReadOutput) -> Streamed:
    node = host.registry.nodes.get(task.assigned_node or "")
    if node is None or not node.online:
        where = f"node {task.assigned_node} is away" if task.assigned_node else "no node has it now"
        raise NodeUnreachable(f"the output of task {task.task_id} cannot be read: {where}")
    opened = host.scheduler.peers.at(node.row.url).stream(route, asked)
    answer = await opened.__aenter__()

    async def relay() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except aiohttp.ClientError as broken:
            raise ConnectionResetError(f"the runner went away in the middle: {broken}") from broken
        finally:
            await opened.__aexit__(None, None, None)

    offset = answer.headers.get(OFFSET_HEADER)
    return Streamed(relay(), {OFFSET_HEADER: offset} if offset else {})


ANSWERS = [
    on_stream(host_api.TASK_STDOUT, read_output("stdout", runner_api.STDOUT)),
    on_stream(host_api.TASK_STDERR, read_output("stderr", runner_api.STDERR)),
]
