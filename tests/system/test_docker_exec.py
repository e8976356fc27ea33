"""What a runner that was killed had started in containers is ended by the next one; what was to stay, stays."""

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.model.execution import ERR, OUT, ExecSpec
from kohakuriver.system import process_calls
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_engine import DockerEngine
from kohakuriver.system.docker_exec import DockerExec
from kohakuriver.system.docker_stream import RawStream
from tests.docker_daemon import IMAGE, Daemon
from tests.system.contract_exec import gone, until_said
from tests.system.engine_rig import CLUSTER, NODE, Rig, launch


@pytest.mark.docker
def test_sessions_of_an_earlier_life_end_and_what_they_left_to_itself_goes_on(
    tmp_path: Path, docker_daemon: Daemon
) -> None:
    def make(cluster: str, node: str) -> DockerEngine:
        return DockerEngine(cluster, node, tmp_path / f"{cluster}-{node}", docker_daemon.socket)

    rig = Rig(make=make, directory=tmp_path, image=IMAGE, network="none")

    async def play() -> None:
        engine, spec = make(CLUSTER, NODE), rig.spec("sleep", "100")
        await engine.open()
        await launch(engine, spec)
        session = await engine.exec(spec.key, ExecSpec(argv=("sh",), tty=True))
        await session.write(b"setsid sleep 91 >/dev/null 2>&1 & sleep 0.1; echo re''ady\n")
        await until_said(session, b"ready")
        leader = session._leader  # type: ignore[attr-defined]
        await session._stream.close()  # type: ignore[attr-defined]  # as a death would
        assert process_calls.is_alive(leader)
        other = make(CLUSTER, "another node")
        await other.open()
        assert process_calls.is_alive(leader)
        await other.close()
        successor = make(CLUSTER, NODE)
        await successor.open()
        await gone(leader[0])
        look = await successor.exec(spec.key, ExecSpec(argv=("ps",)))
        assert b"sleep 91" in await until_said(look, b"sleep 91")
        await look.close()
        await successor.remove(spec.key)
        await successor.close()
        await engine.close()

    async def in_time() -> None:
        async with asyncio.timeout(60):
            await play()

    asyncio.run(in_time())


class SlowDaemon:
    """Tells of a process one fact after another; the last one stays."""

    def __init__(self, *facts: tuple[int, bool, int | None]) -> None:
        self.facts = [dict(zip(("Pid", "Running", "ExitCode"), each, strict=True)) for each in facts]

    async def look(self, target: str) -> Any:
        return self.facts.pop(0) if len(self.facts) > 1 else self.facts[0]


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ([(0, False, None), (0, True, None), (os.getpid(), True, None)], OUT),
        ([(0, False, None), (0, False, 127), (os.getpid(), False, 127)], OUT),
        ([(0, False, None), (0, False, 0)], OUT),
        ([(0, False, None), (0, False, 126)], ERR),
    ],
    ids=["asked too early", "ended at once", "ended at once and is still without a pid", "did not begin"],
)
def test_only_of_what_never_began_the_words_are_the_daemons(
    facts: list[tuple[int, bool, int | None]], kind: int
) -> None:
    async def play() -> None:
        heard = asyncio.StreamReader()
        heard.feed_data(b"\1\0\0\0\0\0\0\5words")
        heard.feed_eof()
        stream, daemon = RawStream({}, heard, cast(Any, None)), cast(DockerClient, SlowDaemon(*facts))
        session = DockerExec(daemon, "id", stream, tty=False)
        await session.settle(ExecSpec(argv=("true",)))
        told = await session.read()
        assert told is not None and told[0] == kind and told[1].strip() == b"words"

    asyncio.run(play())
