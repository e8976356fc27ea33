"""Terminals of a runner: what goes in and comes out, broken connections, slow readers, onlookers, and the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import codec, stream_api
from kohakuriver.model import terminal as frames
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound, RiverError
from kohakuriver.model.runner_vps_api import TELL_INSIDE, TellInside
from kohakuriver.model.stream_api import RunnerTerminal, StartTerminal
from kohakuriver.model.terminal import BYTES, TEXT, Kind
from kohakuriver.system import process_calls
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import error_in
from kohakuriver.wire.terminal_session import BUFFER_BYTES
from tests.runner.stage import Stage, play
from tests.system.contract_exec import gone


class Program:
    """The other end of a terminal, as a program holds it; `confirms` when it says what it has heard."""

    def __init__(self, socket: RawSocket, confirms: bool = True) -> None:
        self.socket, self.confirms = socket, confirms
        self.said = {Kind.OUTPUT: b"", Kind.ERRORS: b""}
        self.session, self.at, self.taken = "", 0, 0
        self.code: int | None = None

    async def hear(self) -> bool:
        """Take one frame; False when there are no more."""
        message = await self.socket.receive()
        if message is None:
            return False
        kind, payload = frames.split(message)
        if kind in self.said:
            self.said[kind] += payload
            self.at += len(payload)
            if self.confirms:
                await self.socket.send(frames.total_frame(Kind.RECEIVED, self.at))
        elif kind is Kind.OPENED:
            opened = codec.loads(payload)
            self.session, self.at, self.taken = opened["session"], opened["at"], opened["taken"]
        elif kind is Kind.EXIT:
            self.code = frames.read_exit(payload)
        elif kind is Kind.TAKEN:
            self.taken = frames.read_total(payload)
        return True

    async def until(self, wanted: bytes) -> None:
        while wanted not in self.said[Kind.OUTPUT]:
            assert await self.hear(), (self.said, self.socket.close_reason)

    async def until_exit(self) -> int:
        while self.code is None:
            assert await self.hear(), (self.said, self.socket.close_reason)
        await self.socket.close()
        return self.code

    async def type(self, data: bytes) -> None:
        await self.socket.send(frames.frame(Kind.INPUT, data))

    async def refusal(self) -> RiverError | None:
        while await self.hear():
            pass
        return error_in(self.socket.close_code, self.socket.close_reason)


async def dial(stage: Stage, protocol: str, **asked: Any) -> RawSocket:
    members: dict[str, Any] = {"task_id": Snowflake(1), "attempt": 1, "user": "ada"} | asked
    socket = await stage.peer.open(stream_api.TERMINAL_AT_RUNNER, RunnerTerminal(**members), protocol)
    stage.afterwards(socket.hang_up)
    return socket


async def begin(stage: Stage, *argv: str, user: str = "ada", may_watch: bool = False, **start: Any) -> Program:
    program = Program(await dial(stage, BYTES, user=user, may_watch=may_watch), start.pop("confirms", True))
    asked = codec.encoder(StartTerminal)(StartTerminal(argv=list(argv), **start))
    await program.socket.send(frames.frame(Kind.START, codec.dumps(asked).encode()))
    return program


def on_stage(directory: Path, script: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a script beside a workload that only waits; no process of a terminal may be left."""

    async def whole(stage: Stage) -> None:
        async with asyncio.timeout(60):
            await stage.execute("sleep", "1000000")
            await stage.told("running")
            await script(stage)
            for session in list(stage.runner.terminals.sessions.by_id.values()):
                await stage.runner.terminals.sessions.end(session)

    play(directory, whole)


def sessions(stage: Stage) -> int:
    return len(stage.runner.terminals.sessions.by_id)


async def settled(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


def test_a_command_without_a_terminal_is_like_a_pipe(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        data = bytes(range(256)) * 5000
        program = await begin(stage, "sh", "-c", "cat; echo done >&2; exit 5", tty=False)

        async def give() -> None:
            for at in range(0, len(data), 100_000):
                await program.type(data[at : at + 100_000])
            await program.socket.send(frames.frame(Kind.END_INPUT))

        _, code = await asyncio.gather(give(), program.until_exit())
        assert (code, program.said) == (5, {Kind.OUTPUT: data, Kind.ERRORS: b"done\n"})
        assert program.taken > 0
        await settled(lambda: sessions(stage) == 0)

    on_stage(tmp_path, script)


def test_what_whoever_is_inside_should_know_stands_in_his_terminal_and_in_no_pipe(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        person = await begin(stage, "sh", "-c", "echo ready; cat")
        pipe = await begin(stage, "sh", "-c", "echo ready; cat", tty=False)
        for each in (person, pipe):
            await each.until(b"ready")
        told = TellInside(task_id=Snowflake(1), attempt=1, text="it will be stopped in 10m00s")
        await stage.call(TELL_INSIDE, told)
        await person.until(b"\x1b[7m kohakuriver: it will be stopped in 10m00s \x1b[0m\r\n")
        await pipe.socket.send(frames.frame(Kind.END_INPUT))
        assert await pipe.until_exit() == 0 and pipe.said[Kind.OUTPUT] == b"ready\n"
        await person.type(b"\x04")
        assert await person.until_exit() == 0
        await settled(lambda: sessions(stage) == 0)

    on_stage(tmp_path, script)


def test_a_shell_is_found_and_has_the_size_that_is_wanted(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, rows=31, columns=73, term="vt100")
        await program.type(b"stty size; echo $TERM\n")
        await program.until(b"31 73")
        await program.until(b"vt100\r\n")
        for rows in range(40, 90):  # a storm of sizes
            await program.socket.send(frames.resize_frame(rows, 100))
        await program.type(b"stty size\n")
        await program.until(b"89 100")
        await program.type(b"exit 7\n")
        assert await program.until_exit() == 7

    on_stage(tmp_path, script)


def test_who_was_cut_off_goes_on_where_he_was_and_misses_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        count = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; read word; echo got $word"
        program = await begin(stage, "sh", "-c", count, tty=False)
        said = b""
        for _ in range(6):
            await program.hear()
            await program.hear()
            await program.socket.hang_up()
            said += program.said[Kind.OUTPUT]
            program = await begin(stage, session=program.session, received=program.at)
            await program.hear()
        await program.type(b"hello\n")
        assert await program.until_exit() == 0
        wanted = b"".join(b"line %d\n" % number for number in range(1, 61)) + b"got hello\n"
        assert said + program.said[Kind.OUTPUT] == wanted

    on_stage(tmp_path, script)


def test_the_end_is_told_to_who_comes_back_for_it(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, "sh", "-c", "read go; echo bye; exit 3", tty=False)
        await program.hear()
        await program.type(b"go\n")
        await program.socket.hang_up()
        session = stage.runner.terminals.sessions.by_id[program.session]
        await settled(lambda: session.is_over)
        again = await begin(stage, session=program.session)
        assert (await again.until_exit(), again.said[Kind.OUTPUT]) == (3, b"bye\n")
        await settled(lambda: sessions(stage) == 0)

    on_stage(tmp_path, script)


def test_nobody_else_takes_up_a_session_and_after_a_while_nobody_does(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, "sleep", "1000")
        await program.hear()
        leader = stage.runner.terminals.sessions.by_id[program.session].process._leader  # type: ignore[attr-defined]
        await program.socket.hang_up()
        await settled(lambda: stage.runner.terminals.sessions.by_id[program.session].holder is None)
        other = await begin(stage, user="eve", session=program.session)
        assert isinstance(await other.refusal(), NotFound)
        await stage.until(lambda: sessions(stage) == 0, pass_seconds=1.0)
        await settled(lambda: not process_calls.is_alive(leader))
        late = await begin(stage, session=program.session)
        assert isinstance(await late.refusal(), NotFound)

    on_stage(tmp_path, script)


def test_a_session_that_is_left_ends_at_once(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        for leave in ("leave", "close"):
            program = await begin(stage, "sleep", "1000")
            await program.hear()
            leader = stage.runner.terminals.sessions.by_id[program.session].process._leader  # type: ignore[attr-defined]
            assert process_calls.is_alive(leader)
            await (program.socket.send(frames.frame(Kind.LEAVE)) if leave == "leave" else program.socket.close())
            await settled(lambda: sessions(stage) == 0)
            await gone(leader[0])

    on_stage(tmp_path, script)


def test_a_session_is_held_by_one_connection_the_newest(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        tasks = len(asyncio.all_tasks())
        first = await begin(stage, "cat", tty=False)
        await first.hear()
        second = await begin(stage, session=first.session)
        await second.hear()
        refusal = await first.refusal()
        assert refusal is not None and "taken up elsewhere" in str(refusal)
        await second.type(b"still here")
        await second.until(b"still here")
        assert sessions(stage) == 1
        await second.socket.close()
        await settled(lambda: sessions(stage) == 0 and len(asyncio.all_tasks()) <= tasks)

    on_stage(tmp_path, script)


def test_who_does_not_read_holds_up_the_process_and_no_memory(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, "cat", "/dev/zero", tty=False, confirms=False)
        await program.hear()
        output = stage.runner.terminals.sessions.by_id[program.session].output
        before = -1
        while before != output.head:
            before = output.head
            await asyncio.sleep(0.3)
        assert BUFFER_BYTES <= output.head <= BUFFER_BYTES + 300_000
        while program.at < 5 * BUFFER_BYTES:  # once he does, it goes on
            await program.hear()
            await program.socket.send(frames.total_frame(Kind.RECEIVED, program.at))
        assert not program.said[Kind.OUTPUT].strip(b"\0")

    on_stage(tmp_path, script)


def test_an_operator_may_look_on_and_changes_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, "cat", tty=False)
        await program.type(b"before")
        await program.until(b"before")
        onlooker = await begin(stage, user="boss", may_watch=True, watch=True)
        await onlooker.until(b"before")
        await onlooker.type(b"nonsense")
        await onlooker.socket.send(frames.frame(Kind.END_INPUT))
        await program.type(b" after")
        await onlooker.until(b"before after")
        await onlooker.socket.close()
        await program.type(b" and on")
        await program.until(b"before after and on")
        assert b"nonsense" not in program.said[Kind.OUTPUT]
        curious = await begin(stage, user="eve", watch=True)
        assert isinstance(await curious.refusal(), NotAllowed)

    on_stage(tmp_path, script)


@asynccontextmanager
async def browser(stage: Stage, **asked: Any) -> AsyncIterator[RawSocket]:
    socket = await dial(stage, TEXT, **asked)
    yield socket
    await socket.close()


async def heard(socket: RawSocket, wanted: str) -> list[Any]:
    """Frames up to the one with the wanted text."""
    found: list[Any] = []
    text = ""
    while wanted not in text:
        message = await socket.receive()
        assert isinstance(message, str), (found, socket.close_reason)
        found.append(json.loads(message))
        text += found[-1].get("data", "") + str(found[-1].get("code", ""))
    return found


def test_a_browser_speaks_json_and_characters_stay_whole(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        async with browser(stage, shell="sh", rows=20, columns=60) as socket:
            assert socket.protocol == TEXT
            split = (
                "printf 'stty'; stty size; printf '\\303'; sleep 0.2; printf '\\251\\n'; printf 'x\\377y\\n'; exit 4\n"
            )
            await socket.send(json.dumps({"type": "resize", "rows": 22, "cols": 66}))
            await socket.send(json.dumps({"type": "input", "data": split}))
            found = await heard(socket, "\ufffdy\r\n")
            text = "".join(frame.get("data", "") for frame in found)
            assert "stty22 66" in text and "é\r\n" in text and "x\ufffdy" in text
            last = await heard(socket, "4")
            assert last[-1] == {"type": "exit", "code": 4}
            assert await socket.receive() is None
        await settled(lambda: sessions(stage) == 0)

    on_stage(tmp_path, script)


def test_a_browser_comes_back_too(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        socket = await dial(stage, TEXT)
        found = await heard(socket, "")
        message = await socket.receive()
        session = json.loads(str(message))["id"]
        await socket.send(json.dumps({"type": "input", "data": "X=kept\n"}))
        await asyncio.sleep(0.2)
        await socket.hang_up()
        async with browser(stage, session=session) as again:
            await again.send(json.dumps({"type": "input", "data": "echo is $X\n"}))
            found = await heard(again, "is kept")
            assert found

    on_stage(tmp_path, script)


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", "text", b"\x01{}", b"\x03\0", b"\x06\x63", b"\x10{}", b"\x04" + b"\xff" * 8]
)
def test_frames_that_are_none_are_a_protocol_error_and_nothing_else(tmp_path: Path, garbage: bytes | str) -> None:
    async def script(stage: Stage) -> None:
        first = Program(await dial(stage, BYTES))
        await first.socket.send(garbage)
        if garbage != b"\x01{}":
            assert isinstance(await first.refusal(), BadRequest)
            program = await begin(stage, "cat")
            await program.hear()
            await program.socket.send(garbage)
            refusal = await program.refusal()
            assert isinstance(refusal, BadRequest)
        else:
            await first.until(b"")
            await first.socket.close()

    on_stage(tmp_path, script)


def test_a_shell_that_is_not_there_and_a_workload_that_is_not_there_are_not_found(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, shell="no-such-shell")
        assert isinstance(await program.refusal(), NotFound)
        with pytest.raises(NotFound):
            await dial(stage, TEXT, shell="no-such-shell")
        with pytest.raises(NotFound):
            await dial(stage, TEXT, task_id=Snowflake(2))

    on_stage(tmp_path, script)


def test_a_runner_that_stops_leaves_no_process(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        program = await begin(stage, "sleep", "1000")
        await program.hear()
        leader = stage.runner.terminals.sessions.by_id[program.session].process._leader  # type: ignore[attr-defined]
        await stage.stop_runner()
        assert not process_calls.is_alive(leader)
        assert not await program.hear()

    on_stage(tmp_path, script)
