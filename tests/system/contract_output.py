"""The contract of engines, part two: the log files."""

from kohakuriver.system.engine import Engine, Phase, cut_marker
from tests.system.engine_rig import (
    Rig,
    launch,
    printed,
    ran,
    stderr,
    stdout,
    with_engine,
)


class OutputContract:
    """Every byte, up to the limit."""

    @with_engine
    async def test_stdout_and_stderr_stay_apart(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo out; echo err >&2; printf 'no newline'")
        await ran(engine, spec)
        assert (stdout(spec), stderr(spec)) == (b"out\nno newline", b"err\n")

    @with_engine
    async def test_a_silent_workload_leaves_two_empty_files(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true")
        await ran(engine, spec)
        assert {path.name: path.read_bytes() for path in spec.log_directory.iterdir()} == {"stdout": b"", "stderr": b""}

    @with_engine
    async def test_every_byte_value_survives(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("printf '" + "".join(f"\\{n:03o}" for n in range(256)) + "'")
        await ran(engine, spec)
        assert stdout(spec) == bytes(range(256))

    @with_engine
    async def test_output_can_be_read_while_it_runs(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo early; sleep 30; echo late")
        await launch(engine, spec)
        await printed(spec, b"early\n")
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING

    @with_engine
    async def test_a_megabyte_is_whole(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("echo begin; head -c 1000000 /dev/zero; echo end")
        await ran(engine, spec)
        assert stdout(spec) == b"begin\n" + bytes(1_000_000) + b"end\n"

    @with_engine
    async def test_output_over_the_limit_is_cut_with_a_marker_and_does_not_hold_it_up(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("head -c 300000 /dev/zero; echo problem >&2; exit 5", log_limit_bytes=1000)
        assert (await ran(engine, spec)).code == 5
        assert stdout(spec) == bytes(1000) + cut_marker(1000)
        assert stderr(spec) == b"problem\n"

    @with_engine
    async def test_output_of_exactly_the_limit_is_not_marked(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("head -c 1000 /dev/zero", log_limit_bytes=1000)
        await ran(engine, spec)
        assert stdout(spec) == bytes(1000)

    @with_engine
    async def test_finishing_the_logs_twice_changes_nothing(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("echo", "hello")
        await ran(engine, spec)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"hello\n"
