"""Conversations of every kind of sense and nonsense on the sockets of a runner: they end, and never by a failure of ours."""

import asyncio
import itertools
import json
import logging
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.model import terminal as frames
from kohakuriver.model.terminal import BYTES, TEXT, Input, Kind, Resize
from kohakuriver.model.tunnel import FLOW, STREAM, Frame, Type
from kohakuriver.runner.tunnel_door import HEADER, PATH
from kohakuriver.wire.sockets import GOING_AWAY, LOST, NORMAL, TOO_BIG, Message, Socket
from kohakuriver.wire.terminal_session import Typed
from tests.runner.stage import Stage, play
from tests.runner.test_forwards import dial as dial_port
from tests.runner.test_forwards import echo, listening
from tests.runner.test_terminals import dial as dial_terminal

START = frames.frame(Kind.START, b'{"argv": ["cat"], "tty": false}')
LEAVE = frames.frame(Kind.LEAVE)
CONVERSATIONS, PATIENCE_SECONDS = 8, 20.0
ends = settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
headed = st.tuples(st.integers(0, 255), st.integers(0, 2)).map(lambda head: bytes(head) + bytes(6))
junk = st.binary(max_size=40) | st.text(max_size=20)
tunnelled = (
    st.builds(
        Frame,
        st.sampled_from(Type),
        st.integers(0, 3) | st.just(2**32 - 1),
        st.sampled_from((0, 1)),
        st.sampled_from((0, 1, 65535)),
        st.binary(max_size=12),
    ).map(Frame.encode)
    | headed
)
framed = st.builds(frames.frame, st.sampled_from(Kind), st.binary(max_size=12))
value = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
typed = st.dictionaries(st.sampled_from(("type", "data", "rows", "cols")), value | st.sampled_from(("input", "resize")))


def talks(message: st.SearchStrategy[Message]) -> st.SearchStrategy[list[list[Message]]]:
    """Some conversations, each so many messages."""
    return st.lists(st.lists(message | junk, max_size=8), min_size=CONVERSATIONS, max_size=CONVERSATIONS)


async def talk(socket: Socket, messages: list[Message], last: Message | None) -> None:
    """Say all of it, hear what comes, and see how it ends: well, or because of what we said."""

    async def hear() -> None:
        while await socket.receive() is not None:
            pass

    async def say() -> None:
        for message in messages:
            await socket.send(message)
        if last is not None:
            await socket.send(last)
        await asyncio.sleep(0.01)
        await socket.close()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(hear(), say(), return_exceptions=True)
    allowed = {NORMAL, GOING_AWAY, TOO_BIG, LOST}  # lost: we closed before there was an answer
    assert socket.close_code in allowed or 4400 <= socket.close_code < 4500, (socket.close_code, socket.close_reason)


def on_stage(script: Callable[[Stage], Awaitable[None]], caplog: pytest.LogCaptureFixture) -> None:
    """Run a script beside a workload that waits, on a runner that tells of no failure while it runs."""

    async def whole(stage: Stage) -> None:
        await stage.start_runner(tunnel_enabled=True)
        await stage.at_rest()
        await stage.execute("sleep", "1000000")
        await stage.told("running")
        caplog.clear()
        await script(stage)
        failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not failures, [(record.getMessage(), record.exc_text) for record in failures]

    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), whole, runner=False)


@pytest.mark.parametrize(
    ("protocol", "proto"), [(FLOW, "tcp"), ("", "tcp"), (STREAM, "tcp"), (FLOW, "udp"), (STREAM, "udp")]
)
@given(conversations=talks(tunnelled))
@ends
def test_forwards(
    protocol: str, proto: str, caplog: pytest.LogCaptureFixture, conversations: list[list[Message]]
) -> None:
    async def script(stage: Stage) -> None:
        async with listening(echo) as port:
            for messages in conversations:
                opening: list[Message] = [] if protocol == STREAM else [Frame(Type.CONNECT, 0).encode()]
                await talk(await dial_port(stage, port, protocol, proto), opening + messages, None)

    on_stage(script, caplog)


@given(conversations=talks(framed))
@ends
def test_terminals_of_programs(caplog: pytest.LogCaptureFixture, conversations: list[list[Message]]) -> None:
    async def script(stage: Stage) -> None:
        for number, messages in enumerate(conversations):
            opening: list[Message] = [START] if number % 3 else []
            await talk(await dial_terminal(stage, BYTES), opening + messages, LEAVE)

    on_stage(script, caplog)


@given(conversations=talks(typed.map(json.dumps)))
@ends
def test_terminals_of_browsers(caplog: pytest.LogCaptureFixture, conversations: list[list[Message]]) -> None:
    async def script(stage: Stage) -> None:
        for messages in conversations:
            await talk(await dial_terminal(stage, TEXT), messages, None)
            for session in list(stage.runner.terminals.sessions.by_id.values()):
                await stage.runner.terminals.sessions.end(session)

    on_stage(script, caplog)


@given(conversations=talks(tunnelled))
@ends
def test_containers_that_dial(caplog: pytest.LogCaptureFixture, conversations: list[list[Message]]) -> None:
    async def script(stage: Stage) -> None:
        name = "kohakuriver-task-1"
        proof = {HEADER: stage.runner.bench.door.variables(name)["KOHAKURIVER_TUNNEL_SIGNATURE"]}
        async with aiohttp.ClientSession(headers=proof) as http:
            for messages in conversations:
                async with http.ws_connect(f"{stage.runner.url}{PATH}{name}", protocols=(FLOW,)) as ws:
                    for message in messages:
                        if not ws.closed:
                            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
                    await ws.close()
                assert ws.close_code in (NORMAL, None, LOST) or 4400 <= (ws.close_code or 0) < 4500, ws.close_code

    on_stage(script, caplog)


@given(st.lists(st.builds(Resize, st.integers(1, 9), st.integers(1, 9)) | st.builds(Input, st.binary(max_size=4))))
def test_of_many_sizes_in_a_row_only_the_last_is_set_and_what_is_typed_keeps_its_place(
    said: list[Resize | Input],
) -> None:
    async def taken() -> list[object]:
        typed = Typed()
        for each in said:
            typed.put(each)
        return [await typed.get() for _ in range(len(typed._waiting))]

    runs = [list(run) for _, run in itertools.groupby(said, type)]
    wanted = [each for run in runs for each in (run[-1:] if isinstance(run[0], Resize) else run)]
    assert asyncio.run(taken()) == wanted
