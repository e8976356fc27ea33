"""Outputs over HTTP: byte-exact, from an offset, the last lines, followed to the end, of any attempt."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import runner_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NodeUnreachable, NotFound
from kohakuriver.model.runner_api import OFFSET_HEADER, ReadOutput
from kohakuriver.runner.log_keeper import LogKeeper
from kohakuriver.system.kept_logs import Keep
from tests.runner.stage import Stage, key, play

EVERY_BYTE = "printf '" + "".join(f"\\{n:03o}" for n in range(256)) + "'"


def test_every_byte_comes_through(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell(f"{EVERY_BYTE}; echo problem >&2; sleep 1000")
        await stage.told("running")
        await stage.until(lambda: (tmp_path / "state/logs/1/1/stderr").stat().st_size)
        assert await stage.output() == bytes(range(256))
        assert await stage.output(runner_api.STDERR) == b"problem\n"

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("asked", "wanted", "offset"),
    [
        ({}, b"one\ntwo\nthree\nfour", 0),
        ({"offset": 4}, b"two\nthree\nfour", 4),
        ({"offset": 18}, b"", 18),
        ({"offset": 1000}, b"", 18),
        ({"lines": 0}, b"", 18),
        ({"lines": 1}, b"four", 14),
        ({"lines": 2}, b"three\nfour", 8),
        ({"lines": 100}, b"one\ntwo\nthree\nfour", 0),
    ],
)
def test_a_stretch_of_the_output(tmp_path: Path, asked: dict[str, Any], wanted: bytes, offset: int) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("printf 'one\\ntwo\\nthree\\nfour'")
        await stage.told("ended")
        request = ReadOutput(task_id=Snowflake(1), **asked)
        for follow in (False, True):
            async with stage.peer.stream(runner_api.STDOUT, request) as answer:
                assert await answer.read() == wanted
                assert answer.headers[OFFSET_HEADER] == str(offset), follow

    play(tmp_path, script)


def test_output_is_followed_from_before_the_start_to_the_end(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["ensure_image"] = 5
        await stage.shell("echo one; sleep 10; echo two; sleep 10; echo three")
        following = asyncio.create_task(stage.output(follow=True))
        await stage.told("running", pass_seconds=0.1)
        await stage.clock.advance(15)
        assert not following.done()
        await stage.told("ended", pass_seconds=0.1)
        await stage.until(following.done, pass_seconds=0.1)
        assert await following == b"one\ntwo\nthree\n"

    play(tmp_path, script)


def test_followed_output_resumes_from_an_offset(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo one; sleep 10; echo two")
        await stage.told("running")
        following = asyncio.create_task(stage.output(follow=True, offset=4))
        last_line = asyncio.create_task(stage.output(follow=True, lines=1))
        await stage.until(lambda: stage.log() == b"one\n")
        await asyncio.sleep(0.05)
        await stage.clock.advance(11)
        await stage.until(lambda: following.done() and last_line.done(), pass_seconds=0.1)
        assert (await following, await last_line) == (b"two\n", b"one\ntwo\n")

    play(tmp_path, script)


def test_nothing_is_missing_at_the_end_of_a_followed_output(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.hold_logs = True  # all of it comes only when the end is known
        await stage.shell("head -c 3000000 /dev/zero; echo end")
        following = asyncio.create_task(stage.output(follow=True))
        await stage.told("ended")
        await stage.until(following.done, pass_seconds=0.05)
        assert await following == bytes(3_000_000) + b"end\n"

    play(tmp_path, script)


def test_new_output_reaches_a_follower_in_time(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo one; sleep 1000")
        await stage.told("running")
        path = tmp_path / "state/logs/1/1/stdout"
        worst_seconds = 0.0
        async with stage.peer.stream(runner_api.STDOUT, ReadOutput(task_id=Snowflake(1), follow=True)) as answer:
            assert await answer.content.readany() == b"one\n"
            for number in range(10):
                await stage.clock.advance(number * 0.013)  # anywhere between two looks
                with path.open("ab") as file:
                    file.write(b"%d\n" % number)
                waiting, before = asyncio.create_task(answer.content.readany()), stage.clock.monotonic()
                await stage.until(waiting.done, pass_seconds=0.01)
                assert await waiting == b"%d\n" % number
                worst_seconds = max(worst_seconds, stage.clock.monotonic() - before)
        assert worst_seconds < 0.2

    play(tmp_path, script)


def test_outputs_of_every_attempt_are_kept_and_the_latest_is_meant_when_none_is_named(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        for attempt in (1, 2, 10):
            await stage.shell(f"echo attempt {attempt}", attempt=attempt)
            await stage.told("ended", attempt=attempt)
        await stage.forgotten()
        assert await stage.output() == b"attempt 10\n"
        assert await stage.output(follow=True) == b"attempt 10\n"
        assert await stage.output(attempt=2) == b"attempt 2\n"
        with pytest.raises(NotFound, match="attempt 3"):
            await stage.output(attempt=3)
        await stage.shell("echo eleven; sleep 1000", attempt=11)
        await stage.told("running", attempt=11)
        assert await stage.output() == b"eleven\n"

    play(tmp_path, script)


def test_what_is_kept_no_longer_says_so_and_what_runs_is_kept(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo over", task_id=2)
        await stage.told("ended", task_id=2)
        await stage.forgotten()
        await stage.shell("echo works; sleep 1000")
        await stage.told("running")
        keeper = LogKeeper(stage.runner.bench, stage.runner.workloads, Keep(0, 1))
        await keeper.step()
        assert not (tmp_path / "state/logs/2").exists()
        for asked in ({}, {"follow": True}, {"offset": 3}, {"lines": 1}):
            said = await stage.output(task_id=2, attempt=1, **asked)
            assert b"this output was removed on" in said
        assert await stage.output(attempt=1) == b"works\n"
        with pytest.raises(NotFound):
            await stage.output(task_id=2, attempt=2)

    play(tmp_path, script)


def test_output_of_an_unknown_task_is_not_found(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        with pytest.raises(NotFound, match="no output of task 404"):
            await stage.output(task_id=404)

    play(tmp_path, script)


def test_a_task_that_has_not_started_has_empty_output(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.engine.faults.delay_seconds["ensure_image"] = 60
        await stage.execute("true")
        assert await stage.output() == b""

    play(tmp_path, script)


def test_a_runner_that_stops_breaks_the_stream_instead_of_ending_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stage: Stage) -> None:
        await stage.shell("echo one; sleep 1000")
        await stage.told("running")
        following = asyncio.create_task(stage.output(follow=True))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        stopping = asyncio.create_task(stage.stop_runner())
        await stage.until(stopping.done, pass_seconds=0.05)
        assert time.monotonic() - began < 2
        with pytest.raises(NodeUnreachable):
            await following

    play(tmp_path, script)
    assert not [record for record in caplog.records if record.exc_info], "to stop is no failure"


def test_a_follower_that_hangs_up_is_let_go(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.execute("sleep", "1000")
        await stage.told("running")
        reads = 0
        outputs, read = stage.runner.bench.outputs, stage.runner.bench.outputs.read

        async def counted(*arguments: Any) -> bytes:
            nonlocal reads
            reads += 1
            return await read(*arguments)

        outputs.read = counted  # type: ignore[method-assign,assignment]
        following = asyncio.create_task(stage.output(follow=True))
        await stage.until(lambda: reads > 3, pass_seconds=0.1)
        following.cancel()
        await asyncio.sleep(0.1)
        before = reads
        await stage.clock.advance(10)
        assert reads <= before + 1
        assert key() in stage.node.workloads

    play(tmp_path, script)
