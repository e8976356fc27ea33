"""The outputs of attempts, as bytes, followed as they grow."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotFound
from kohakuriver.model.runner_api import OFFSET_HEADER, ReadOutput
from kohakuriver.runner.outputs import Span
from kohakuriver.runner.state import Runner
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME
from kohakuriver.wire.serve import Handler, Streamed, on_stream

POLL_SECONDS = 0.08
ENDLESS = 2**63 - 1


def read_output(name: str) -> Handler[Runner, ReadOutput, Streamed]:
    """The answer for one of an attempt's two outputs; `name` is its file."""

    async def answer(runner: Runner, caller: Caller, asked: ReadOutput) -> Streamed:
        try:
            directory, is_over = await _locate(runner, asked)
        except NotFound:
            word = await runner.bench.outputs.word_of(asked.task_id, asked.attempt) if asked.attempt else None
            if word is None:
                raise
            return Streamed(_say(word), {OFFSET_HEADER: "0"})
        path = directory / name
        span = await runner.bench.outputs.span(path, asked.offset, asked.lines)
        chunks = _follow(runner, path, span.start, is_over) if asked.follow else _read(runner, path, span)
        return Streamed(chunks, {OFFSET_HEADER: str(span.start)})

    return answer


async def _locate(runner: Runner, asked: ReadOutput) -> tuple[Path, Callable[[], bool]]:
    """Where the output lies, and how to ask whether it can still grow; raises NotFound."""
    held = runner.workloads.find(asked.task_id, asked.attempt)
    if held is not None:
        return held.accepted.log_directory, lambda: held.over or held.departed
    found = await runner.bench.outputs.find(asked.task_id, asked.attempt)
    if found is None:
        which = f"attempt {asked.attempt} of task" if asked.attempt else "task"
        raise NotFound(f"{runner.hostname} has no output of {which} {asked.task_id}")
    return found, lambda: True


async def _say(word: bytes) -> AsyncIterator[bytes]:
    yield word


async def _read(runner: Runner, path: Path, span: Span) -> AsyncIterator[bytes]:
    at = span.start
    while chunk := await runner.bench.outputs.read(path, Span(at, span.end)):
        yield chunk
        at += len(chunk)


async def _follow(runner: Runner, path: Path, at: int, is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
    while True:
        was_over = is_over()  # asked before reading: what is written between the two is not missed
        chunk = await runner.bench.outputs.read(path, Span(at, ENDLESS))
        if chunk:
            yield chunk
            at += len(chunk)
        elif was_over:
            return
        elif runner.bench.closing.is_set():
            raise ConnectionResetError("the runner stops")  # to end the stream well would say that the task is over
        else:
            await runner.clock.sleep(POLL_SECONDS)


ANSWERS = [
    on_stream(runner_api.STDOUT, read_output(STDOUT_NAME)),
    on_stream(runner_api.STDERR, read_output(STDERR_NAME)),
]
