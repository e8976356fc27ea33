"""The first process of a container on a real daemon: whatever the image, and whoever kills it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_engine import DockerEngine
from kohakuriver.system.engine import Exit, Observed, Phase, WorkloadKey
from tests.docker_daemon import IMAGE, Daemon
from tests.system.engine_rig import CLUSTER, NODE, Rig, exited, launch, printed, ran, stderr, stdout

pytestmark = pytest.mark.docker
OF_NOBODY = "kohakuriver/nobody:base"
Script = Callable[[DockerEngine, Rig], Awaitable[None]]
Play = Callable[[Script], None]


@pytest.fixture
def play(tmp_path: Path, docker_daemon: Daemon) -> Iterator[Play]:
    def run(script: Script) -> None:
        async def whole() -> None:
            engine = DockerEngine(CLUSTER, NODE, tmp_path / "containers", docker_daemon.socket)
            await engine.open()
            try:
                async with asyncio.timeout(60):
                    await script(engine, Rig(lambda *_: engine, tmp_path, IMAGE, "none"))
                for seen in await engine.observe_all():
                    await engine.remove(seen.key)
            finally:
                await engine.close()

        asyncio.run(whole())

    yield run
    docker_daemon.remove_containers()
    assert list((tmp_path / "containers").iterdir()) == []


def test_an_image_of_another_user_can_write_its_output(play: Play, docker_daemon: Daemon) -> None:
    made = docker_daemon.cli("create", IMAGE, "true").stdout.strip()
    docker_daemon.cli("commit", "--change", "USER 4711:4711", made, OF_NOBODY)

    async def script(engine: DockerEngine, rig: Rig) -> None:
        spec = rig.shell("id -u; sleep 60 & echo problem >&2; exit 3", image=OF_NOBODY)
        assert await ran(engine, spec) == Exit(3)
        assert (stdout(spec), stderr(spec)) == (b"4711\n", b"problem\n")

    try:
        play(script)
    finally:
        docker_daemon.cli("rm", made)
        docker_daemon.cli("rmi", OF_NOBODY)


def test_nothing_of_it_is_left_in_the_files_of_the_container(play: Play, docker_daemon: Daemon) -> None:
    async def script(engine: DockerEngine, rig: Rig) -> None:
        spec = rig.shell("echo hello > /root/own")
        await ran(engine, spec)
        changed = await asyncio.to_thread(docker_daemon.cli, "diff", spec.name)
        assert changed.stdout.split() == ["C", "/root", "A", "/root/own"]

    play(script)


def test_killed_by_somebody_else_its_end_is_what_docker_says(play: Play, docker_daemon: Daemon) -> None:
    async def script(engine: DockerEngine, rig: Rig) -> None:
        spec = rig.shell("echo begun; sleep 60")
        await launch(engine, spec)
        await printed(spec, b"begun\n")
        await asyncio.to_thread(docker_daemon.cli, "kill", spec.name)
        assert await exited(engine, spec.key) == Exit(137)
        await engine.finish_logs(spec)
        assert stdout(spec) == b"begun\n"

    play(script)


async def ended(engine: DockerEngine, key: WorkloadKey) -> Observed:
    """What is seen of it once it has ended; before that nobody knows, without the daemon, whether it has."""
    while True:
        if await anext(engine.events()) == key:
            with suppress(EngineFailed):
                if (seen := await engine.observe(key)).phase is Phase.EXITED:
                    return seen


def test_an_end_is_known_and_a_signal_arrives_without_the_daemon(play: Play, docker_daemon: Daemon) -> None:
    async def script(engine: DockerEngine, rig: Rig) -> None:
        specs = [rig.shell("trap 'echo bye; exit 5' TERM; echo ready; sleep 60 & wait", task_id=n) for n in (1, 2)]
        for spec in specs:
            await launch(engine, spec)
            await printed(spec, b"ready\n")
        await asyncio.to_thread(docker_daemon.kill)
        try:
            await engine.signal(specs[0].key, signal.SIGTERM)
            seen = await ended(engine, specs[0].key)
            assert seen.exit == Exit(5) and stdout(specs[0]) == b"ready\nbye\n"
        finally:
            await asyncio.to_thread(docker_daemon.restart)
        assert (await engine.observe(specs[1].key)).phase is Phase.RUNNING

    play(script)
