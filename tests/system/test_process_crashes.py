"""kill -9 of the runner, the keeper and the supervisors: nothing is lost, nothing runs twice, nothing stays."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.system.engine import ContainerSpec, Engine, Exit, Phase
from tests.system.engine_rig import CLUSTER, NODE, Rig, exited, launch, printed, ran, stdout, with_engine
from tests.system.process_rig import (
    is_alive,
    keeper_of,
    leaves_nothing_behind,
    process_rig,
    processes_of,
    supervisor_of,
)

KEEPER_ROUNDS = 12


@pytest.fixture(params=["groups", "tree"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield process_rig(tmp_path, control_groups=request.param == "groups")
    leaves_nothing_behind(tmp_path)


def kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def becomes(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def counted(rig: Rig, script: str, **changes: Any) -> ContainerSpec:
    """A script that also leaves a line in a file each time that it is really run."""
    marks = rig.directory / f"ran-{changes.get('task_id', 1)}"
    return rig.shell(f"echo ran >> {marks}; {script}", **changes)


def times_run(rig: Rig, spec: ContainerSpec) -> int:
    marks = rig.directory / f"ran-{spec.key.task_id}"
    return len(marks.read_text().splitlines()) if marks.exists() else 0


RUNNER = f"""
import asyncio, os, signal, sys
from pathlib import Path
from tests.system.process_rig import process_rig
from tests.system.engine_rig import launch
async def main(directory, script, groups):
    rig = process_rig(Path(directory), control_groups=groups == "True")
    engine = rig.make({CLUSTER!r}, {NODE!r})
    await engine.open()
    await launch(engine, rig.shell(script))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""


class TestRunner:
    """What is left when the program above the engine is killed."""

    def test_a_killed_runner_leaves_its_workload_running_and_its_output_whole(
        self, rig: Rig, request: pytest.FixtureRequest
    ) -> None:
        script = "echo one; sleep 0.7; printf '\\377\\000\\n'; head -c 200000 /dev/zero; exit 9"
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, str(rig.directory), script, str("groups" in request.node.name)], check=False
        )
        assert done.returncode == -signal.SIGKILL

        async def next_runner() -> None:
            engine, spec = rig.make(CLUSTER, NODE), rig.shell(script)
            await engine.open()
            assert (await engine.observe(spec.key)).phase is Phase.RUNNING
            await engine.adopt(spec)
            assert await exited(engine, spec.key) == Exit(9)
            await engine.finish_logs(spec)
            assert stdout(spec) == b"one\n\xff\0\n" + bytes(200_000)
            await engine.remove(spec.key)
            await engine.close()

        asyncio.run(next_runner())


class TestKeeper:
    """The keeper may die at any moment."""

    @with_engine
    async def test_a_killed_keeper_is_replaced_and_the_workload_never_notices(self, rig: Rig, engine: Engine) -> None:
        gate = rig.directory / "gate"
        spec = counted(rig, f"echo one; until test -e {gate}; do sleep 0.02; done; echo two; exit 4")
        await launch(engine, spec)
        await printed(spec, b"one\n")
        kill(keeper_of(rig.directory))
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING
        await engine.start(spec)
        gate.touch()
        assert await exited(engine, spec.key) == Exit(4)
        assert stdout(spec) == b"one\ntwo\n"
        assert times_run(rig, spec) == 1

    @with_engine
    async def test_an_end_is_told_though_the_keeper_died_meanwhile(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("sleep 0.5; exit 4")
        await launch(engine, spec)
        kill(keeper_of(rig.directory))
        async for key in engine.events():
            if (await engine.observe(key)).phase is Phase.EXITED:
                break

    @with_engine
    async def test_a_paused_workload_is_still_paused_for_the_next_keeper(self, rig: Rig, engine: Engine) -> None:
        gate = rig.directory / "gate"
        spec = rig.shell(f"until test -e {gate}; do sleep 0.02; done; echo done")
        await launch(engine, spec)
        await engine.pause(spec.key)
        kill(keeper_of(rig.directory))
        gate.touch()
        await asyncio.sleep(0.3)
        assert (await engine.observe(spec.key)).phase is Phase.PAUSED and stdout(spec) == b""
        await engine.resume(spec.key)
        assert await exited(engine, spec.key) == Exit(0)
        assert stdout(spec) == b"done\n"

    @with_engine
    async def test_remove_works_on_what_an_earlier_keeper_started(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("trap '' TERM; echo ready; sleep 1000")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        kill(keeper_of(rig.directory))
        await engine.remove(spec.key)
        assert await engine.observe_all() == []

    @with_engine
    async def test_killed_again_and_again_under_load_it_loses_nothing_and_runs_nothing_twice(
        self, rig: Rig, engine: Engine
    ) -> None:
        chance, going = random.Random(7), True

        async def murder() -> None:
            for _ in range(KEEPER_ROUNDS):
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                kill(keeper_of(rig.directory))
            nonlocal going
            going = False

        async def one(number: int) -> None:
            code = number % 200
            spec = counted(rig, f"echo begin; sleep 0.05; echo end; exit {code}", task_id=number)
            assert await ran(engine, spec) == Exit(code)
            assert stdout(spec) == b"begin\nend\n"
            assert times_run(rig, spec) == 1
            if number % 2:
                await engine.remove(spec.key)

        async def some(first: int) -> None:
            number = first
            while going:
                await one(number)
                number += 4

        await asyncio.gather(murder(), *(some(first) for first in range(1, 5)))


class TestSupervisor:
    """A supervisor that is killed takes its workload with it, and nobody is told of a success."""

    @with_engine
    async def test_a_killed_supervisor_is_a_killed_workload(self, rig: Rig, engine: Engine) -> None:
        spec, other = rig.shell("sleep 1000 & echo $!; wait"), rig.shell("sleep 0.5; exit 3", task_id=2)
        await launch(engine, spec)
        await launch(engine, other)
        await printed(spec, b"\n")
        kill(supervisor_of(rig.directory, spec))
        assert await exited(engine, spec.key) == Exit(137, signal.SIGKILL)
        assert not is_alive(int(stdout(spec)))
        assert await exited(engine, other.key) == Exit(3), "others do not notice"

    @with_engine
    async def test_its_end_is_told(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "1000")
        await launch(engine, spec)
        kill(supervisor_of(rig.directory, spec))
        async for key in engine.events():
            if key == spec.key and (await engine.observe(key)).phase is Phase.EXITED:
                break

    @with_engine
    async def test_killed_together_with_the_keeper_it_is_the_same(self, rig: Rig, engine: Engine) -> None:
        spec = counted(rig, "sleep 1000 & echo $!; wait")
        await launch(engine, spec)
        await printed(spec, b"\n")
        for pid in processes_of(rig.directory):
            kill(pid)
        assert await exited(engine, spec.key) == Exit(137, signal.SIGKILL)
        assert not is_alive(int(stdout(spec)))
        await engine.start(spec)
        assert times_run(rig, spec) == 1

    @with_engine
    async def test_an_idle_one_may_die(self, rig: Rig, engine: Engine) -> None:
        await ran(engine, rig.spec("true"))
        keeper = keeper_of(rig.directory)
        for pid in processes_of(rig.directory):
            if pid != keeper:
                kill(pid)
        assert await ran(engine, rig.shell("exit 5", task_id=2)) == Exit(5)

    @with_engine
    async def test_killed_at_any_moment_of_a_start_the_workload_runs_once_or_is_told_as_killed(
        self, rig: Rig, engine: Engine
    ) -> None:
        chance = random.Random(11)
        for number in range(1, 25):
            spec = counted(rig, "exit 6", task_id=number)
            await engine.create(spec)
            starting = asyncio.create_task(engine.start(spec))
            await asyncio.sleep(chance.uniform(0, 0.006))
            keeper = keeper_of(rig.directory)
            for pid in processes_of(rig.directory):
                if pid != keeper:
                    kill(pid)
            await starting
            end = await exited(engine, spec.key)
            assert end in (Exit(6), Exit(137, signal.SIGKILL))
            assert times_run(rig, spec) <= 1
            assert end != Exit(6) or times_run(rig, spec) == 1


class TestRemoval:
    """No process of a workload outlives it."""

    @with_engine
    async def test_a_process_that_left_the_session_is_killed_on_removal(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000")
        await launch(engine, spec)
        await printed(spec, b"\n")
        await engine.remove(spec.key)
        assert not is_alive(int(stdout(spec)))

    @with_engine
    async def test_a_daemon_ends_with_the_main_process(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("(setsid sh -c 'echo $$; exec sleep 1000' &); sleep 0.2; exit 2")
        assert await ran(engine, spec) == Exit(2)
        assert not is_alive(int(stdout(spec)))

    @with_engine
    async def test_orphans_that_end_do_not_stay_as_zombies(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("(sleep 0.1 &); (sleep 0.1 &); echo ready; sleep 1000")
        await launch(engine, spec)
        await printed(spec, b"ready\n")
        supervisor = supervisor_of(rig.directory, spec)
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        await becomes(lambda: len(children.read_text().split()) == 1)
