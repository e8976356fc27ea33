"""The contract of engines, part five: processes that are started inside a running workload."""

import asyncio
import os
import signal

import pytest

from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.execution import ERR, OUT, ExecSession, ExecSpec
from kohakuriver.system import process_calls
from kohakuriver.system.engine import Engine, WorkloadKey
from tests.system.engine_rig import Rig, exited, launch, with_engine


async def all_of(session: ExecSession) -> dict[int, bytes]:
    """Everything it writes until its end, by output."""
    found = {OUT: b"", ERR: b""}
    while (piece := await session.read()) is not None:
        found[piece[0]] += piece[1]
    return found


async def until_said(session: ExecSession, wanted: bytes) -> bytes:
    """What it writes, up to what is wanted."""
    said = b""
    while wanted not in said:
        piece = await session.read()
        assert piece is not None, said
        said += piece[1]
    return said


async def started(rig: Rig, engine: Engine, *argv: str, **more: object) -> ExecSession:
    """A process inside a workload that only waits."""
    spec = rig.spec("sleep", "60")
    await launch(engine, spec)
    return await engine.exec(spec.key, ExecSpec(argv=argv, **more))  # type: ignore[arg-type]


async def gone(pid: int) -> None:
    while process_calls.is_alive(process_calls.identity(pid)):
        await asyncio.sleep(0.02)


class ExecContract:
    """What can be started inside, and how it ends."""

    @with_engine
    async def test_two_outputs_stay_apart_and_the_code_is_the_programs(self, rig: Rig, engine: Engine) -> None:
        session = await started(rig, engine, "sh", "-c", "echo out; echo err >&2; exit 3")
        assert await all_of(session) == {OUT: b"out\n", ERR: b"err\n"}
        assert await session.wait() == 3
        await session.close()

    @with_engine
    async def test_input_is_handed_on_byte_by_byte_until_its_end(self, rig: Rig, engine: Engine) -> None:
        session = await started(rig, engine, "cat")
        data = bytes(range(256)) * 3000

        async def give() -> None:
            for at in range(0, len(data), 50_000):
                await session.write(data[at : at + 50_000])
            await session.write_eof()

        _, found = await asyncio.gather(give(), all_of(session))
        assert found == {OUT: data, ERR: b""} and await session.wait() == 0
        await session.close()

    @with_engine
    async def test_a_terminal_has_a_size_that_can_be_changed(self, rig: Rig, engine: Engine) -> None:
        script = "read line; stty size; read line; stty size"  # some daemons set the size a moment after the start
        session = await started(rig, engine, "sh", "-c", script, tty=True, rows=33, columns=7)
        try:
            await session.write(b"go\n")
            await until_said(session, b"33 7")
            await session.resize(44, 101)
            await session.write(b"go\n")
            await until_said(session, b"44 101")
            assert await session.wait() == 0
        finally:
            await session.close()

    @with_engine
    async def test_it_has_the_variables_and_the_directory_it_was_given(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "60", env={"MINE": "workload", "BOTH": "workload"})
        await launch(engine, spec)
        argv = ("sh", "-c", "echo $MINE $BOTH $ODD; pwd")
        odd = "a 'b' \"c\" $d\ne"
        session = await engine.exec(spec.key, ExecSpec(argv=argv, env={"BOTH": "exec", "ODD": odd}, working_dir="/tmp"))
        said = (await all_of(session))[OUT].decode()
        assert said.split("\n")[-2] == "/tmp" and "exec a 'b' \"c\" $d e\n" in said
        await session.close()

    @with_engine
    async def test_a_program_that_is_not_there_says_so_and_ends_with_127(self, rig: Rig, engine: Engine) -> None:
        session = await started(rig, engine, "no-such-program")
        said = await all_of(session)
        assert b"no-such-program" in said[OUT] + said[ERR]
        assert await session.wait() == 127
        await session.close()

    @with_engine
    async def test_it_can_be_sent_a_signal(self, rig: Rig, engine: Engine) -> None:
        session = await started(
            rig, engine, "sh", "-c", "trap 'exit 9' INT; echo ready; while true; do sleep 0.02; done"
        )
        await until_said(session, b"ready")
        await session.signal(signal.SIGINT)
        assert await session.wait() == 9
        await session.close()

    @pytest.mark.parametrize(
        ("tty", "script"), [(True, "sleep 50"), (False, "trap '' HUP; while :; do sleep 0.1; done")]
    )
    def test_it_ends_with_its_session(self, rig: Rig, tty: bool, script: str) -> None:
        @with_engine
        async def play(self: object, rig: Rig, engine: Engine) -> None:
            session = await started(rig, engine, "sh", "-c", f"echo ready; {script}", tty=tty)
            await until_said(session, b"ready")
            pid = session._leader[0]  # type: ignore[attr-defined]
            assert process_calls.is_alive(process_calls.identity(pid))
            await session.close()
            await gone(pid)

        play(self, rig)

    @with_engine
    async def test_who_reads_when_it_is_closed_is_told_that_this_was_all(self, rig: Rig, engine: Engine) -> None:
        session = await started(rig, engine, "cat")
        reading = asyncio.create_task(session.read())
        await asyncio.sleep(0.1)
        await session.close()
        assert await reading is None

    @pytest.mark.parametrize("tty", [True, False])
    def test_to_close_it_twice_is_to_close_it_once(self, rig: Rig, tty: bool) -> None:
        @with_engine
        async def play(self: object, rig: Rig, engine: Engine) -> None:
            session = await started(rig, engine, "sleep", "50", tty=tty)
            reading = asyncio.create_task(session.read())
            await asyncio.gather(session.close(), session.close())
            assert await reading is None and await session.read() is None
            others = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]  # they get the numbers that were its own
            await session.close()
            for each in others:
                os.close(each)

        play(self, rig)

    @with_engine
    async def test_it_ends_with_its_workload(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "60")
        await launch(engine, spec)
        inside = (await engine.inside(spec.key)).pid
        session = await engine.exec(spec.key, ExecSpec(argv=("sleep", "50")))
        await engine.signal(spec.key, signal.SIGKILL)
        await exited(engine, spec.key)
        if inside != os.getpid():  # the fake has nothing to be inside of
            while await session.read() is not None:  # a last word, if it had not even begun
                pass
        await session.close()

    @with_engine
    async def test_nothing_is_started_in_what_does_not_run(self, rig: Rig, engine: Engine) -> None:
        spec, ls = rig.spec("sleep", "60"), ExecSpec(argv=("ls",))
        with pytest.raises(NotFound):
            await engine.exec(WorkloadKey(404, 1), ls)
        with pytest.raises(NotFound):
            await engine.inside(WorkloadKey(404, 1))
        await engine.create(spec)
        for call in (engine.exec(spec.key, ls), engine.inside(spec.key)):
            with pytest.raises(Conflict):
                await call
        await engine.start(spec)
        await engine.pause(spec.key)
        with pytest.raises(Conflict):
            await engine.exec(spec.key, ls)

    @with_engine
    async def test_one_process_after_the_other_leaves_nothing_behind(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "60")
        await launch(engine, spec)
        before = 0
        for number in range(12):
            session = await engine.exec(spec.key, ExecSpec(argv=("true",), tty=number % 2 == 0))
            await session.wait()
            await session.close()
            if number == 3:
                before = len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) <= before
