"""What a runner that was killed had started in containers is ended by the next one; what was to stay, stays."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.execution import ExecSpec
from kohakuriver.system import process_calls
from kohakuriver.system.docker_engine import DockerEngine
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
