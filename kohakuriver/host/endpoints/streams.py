"""Output of tasks, as bytes: from the shared storage when it is there, else from the runner that has it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

from kohakuriver.host.state import Host
from kohakuriver.host.store import tasks
from kohakuriver.model import host_api, runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NodeUnreachable, NotFound
from kohakuriver.model.lifecycle import ON_NODE, Status
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.runner_api import OFFSET_HEADER, ReadOutput
from kohakuriver.model.task import Task
from kohakuriver.system import kept_logs
from kohakuriver.system.output_file import read_from
from kohakuriver.wire.call import chunks_of
from kohakuriver.wire.serve import Handler, Streamed, on_stream

NOT_STARTED = (Status.PENDING_APPROVAL, Status.PENDING, Status.ASSIGNING)
LOOK_AGAIN_SECONDS = 0.1
OnRunner = Route[ReadOutput, ByteStream]


def read_output(name: str, route: OnRunner) -> Handler[Host, ReadOutput, Streamed]:
    """The answer for one of a task's two outputs; `name` is its file, `route` where a runner gives it."""

    async def answer(host: Host, caller: Caller, asked: ReadOutput) -> Streamed:
        task = await _started(host, asked)
        attempt = asked.attempt or task.attempt
        if attempt == 0:
            return Streamed(_nothing(), {OFFSET_HEADER: "0"})
        node = await host.db.read(lambda tx: tasks.node_of_attempt(tx, task.task_id, attempt))
        if node is None:
            raise NotFound(f"task {task.task_id} has no attempt {attempt}")
        may_grow = attempt == task.attempt and task.status in ON_NODE
        shared = (
            None if may_grow and asked.follow else await asyncio.to_thread(_open_shared, host, attempt, asked, name)
        )
        return shared or await _from_runner(host, node, route, replace(asked, attempt=attempt))

    return answer


async def _started(host: Host, asked: ReadOutput) -> Task:
    """The task; when it is to be followed, not before it has a place."""
    while True:
        task = await host.db.read(lambda tx: tasks.get(tx, asked.task_id))
        if not asked.follow or asked.attempt or task.status not in NOT_STARTED:
            return task
        await host.clock.sleep(LOOK_AGAIN_SECONDS)


def _open_shared(host: Host, attempt: int, asked: ReadOutput, name: str) -> Streamed | None:
    if not host.settings.shared_dir:
        return None
    logs = Path(host.settings.shared_dir).expanduser() / "logs"
    try:
        start, chunks = read_from(logs / str(asked.task_id) / str(attempt) / name, asked.offset, asked.lines)
    except FileNotFoundError:
        word = kept_logs.word_of(logs, asked.task_id, attempt)
        if word is None:
            return None
        start, chunks = 0, iter([word])
    return Streamed(_in_threads(chunks), {OFFSET_HEADER: str(start)})


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


async def _nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


async def _from_runner(host: Host, hostname: str, route: OnRunner, asked: ReadOutput) -> Streamed:
    node = host.registry.nodes.get(hostname)
    if node is None or not node.online:
        raise NodeUnreachable(f"the output of task {asked.task_id} is on node {hostname}, which is away")
    opened = host.scheduler.peers.at(hostname, node.row.url, node.row.tls_fingerprint).stream(route, asked)
    answer = await opened.__aenter__()
    offset = answer.headers.get(OFFSET_HEADER)
    headers = {OFFSET_HEADER: offset} if offset else {}
    return Streamed(chunks_of(answer), headers, lambda: opened.__aexit__(None, None, None))


ANSWERS = [
    on_stream(host_api.TASK_STDOUT, read_output("stdout", runner_api.STDOUT)),
    on_stream(host_api.TASK_STDERR, read_output("stderr", runner_api.STDERR)),
]
