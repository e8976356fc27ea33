"""The runner as a program of its own: readiness, SIGTERM, `kill -9`, and what it says when it cannot start."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from kohakuriver.model import runner_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.report import State, WorkloadState
from kohakuriver.model.runner_api import Kill, ReadOutput
from kohakuriver.system.process_engine import ProcessEngine
from kohakuriver.system.secrets import make_secret
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.ports import free_port
from tests.runner.fake_host import FakeHost, serving
from tests.runner.stage import request

TOP = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0


class Service:
    """One runner program under a service manager that only listens; it may die and be started again."""

    def __init__(self, directory: Path, host: FakeHost, http: aiohttp.ClientSession, secret: bytes) -> None:
        self.directory, self.host = directory, host
        self.port = free_port()
        self.peer = Peer(http, f"http://127.0.0.1:{self.port}", Signer("host", secret, SteadyTime()))
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(directory / "notify"))
        self.ear.setblocking(False)
        self.program: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        settings = {
            "HOST_PORT": self.host.port,
            "RUNNER_PORT": self.port,
            "RUNNER_HOSTNAME": "alpha",
            "STATE_DIR": self.directory / "state",
            "CLUSTER_SECRET_FILE": self.directory / "secret",
            "ENGINE": "process",
            "PROCESS_ENGINE_ALLOWED": "true",
        }
        given = {f"KOHAKURIVER_{name}": str(value) for name, value in settings.items()}
        return {**given, "PATH": os.environ["PATH"], "HOME": str(self.directory)}

    def start(self, **changes: str) -> "subprocess.Popen[bytes]":
        env = {**self.environment(), "NOTIFY_SOCKET": str(self.directory / "notify"), **changes}
        command = [sys.executable, "-X", "faulthandler", "-m", "kohakuriver", "runner"]
        with (self.directory / "log").open("ab") as log:
            self.program = subprocess.Popen(command, env=env, cwd=TOP, stdout=log, stderr=log)
        return self.program

    async def ends(self) -> int:
        assert self.program is not None
        return await asyncio.to_thread(self.program.wait, PATIENCE_SECONDS)

    async def hears(self, word: str) -> str:
        """Wait for a message of the program to its service manager that holds the word."""
        loop = asyncio.get_running_loop()
        while word not in (told := (await loop.sock_recv(self.ear, 4096)).decode()):
            pass
        return told

    async def told(self, state: State) -> WorkloadState:
        """Wait until the host has heard that task 1 is in this state."""
        while (found := self.host.told.get((1, 1))) is None or found.state is not state:
            await asyncio.sleep(0.01)
        return found

    async def close(self) -> None:
        self.ear.close()
        if self.program is not None and self.program.poll() is None:
            self.program.kill()
            await self.ends()
        engine = ProcessEngine(self.directory / "state/processes", self.host.cluster_id, "alpha")
        await engine.open()
        for seen in await engine.observe_all():
            await engine.remove(seen.key)
        await engine.close()


@asynccontextmanager
async def a_service(directory: Path) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        secret, host = make_secret(directory / "secret"), FakeHost(heartbeat_interval_seconds=0.5)
        await stack.enter_async_context(serving(host, secret))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        service = Service(directory, host, http, secret)
        stack.push_async_callback(service.close)
        await stack.enter_async_context(asyncio.timeout(PATIENCE_SECONDS))
        yield service


def play(directory: Path, script: Callable[[Service], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with a_service(directory) as service:
            await script(service)

    asyncio.run(whole())


def test_it_is_ready_serves_and_leaves_workloads_alone_when_it_stops(tmp_path: Path) -> None:
    async def script(service: Service) -> None:
        program = service.start(WATCHDOG_USEC="500000")
        await service.hears("READY=1")
        while not service.host.registers:
            await asyncio.sleep(0.01)
        await service.hears("WATCHDOG=1")
        await service.peer.call(runner_api.EXECUTE, request("sh", "-c", "echo $$; sleep 1000"))
        await service.told(State.RUNNING)
        program.send_signal(signal.SIGTERM)
        await service.hears("STOPPING=1")
        assert await service.ends() == 0
        pid = int((tmp_path / "state/logs/1/1/stdout").read_text())
        os.kill(pid, 0)
        assert service.host.told[1, 1].state is State.RUNNING
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log, log

    play(tmp_path, script)


def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    async def script(service: Service) -> None:
        service.start()
        await service.hears("READY=1")
        while not service.host.registers:
            await asyncio.sleep(0.01)
        script = "echo once >> ran; for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.2; done; exit 7"
        asked = request("sh", "-c", script, working_dir=str(tmp_path))
        await service.peer.call(runner_api.EXECUTE, asked)
        for _ in range(3):
            assert service.program is not None
            await asyncio.sleep(0.1)
            service.program.kill()
            await service.ends()
            service.start()
            await service.hears("READY=1")
        end = await service.told(State.ENDED)
        assert (end.exit_code, end.killed, end.message) == (7, False, None)
        output = await _read(service)
        assert output == b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"
        assert (tmp_path / "ran").read_text() == "once\n"
        assert [each.exit_code for each in service.host.ends] == [7]

    play(tmp_path, script)


def test_kill_9_while_a_task_is_being_killed(tmp_path: Path) -> None:
    async def script(service: Service) -> None:
        service.start()
        await service.hears("READY=1")
        while not service.host.registers:
            await asyncio.sleep(0.01)
        await service.peer.call(runner_api.EXECUTE, request("sh", "-c", "trap '' TERM; echo ready; sleep 1000"))
        while not await _read_or_nothing(service):
            await asyncio.sleep(0.01)
        await service.peer.call(runner_api.KILL, Kill(task_id=Snowflake(1), attempt=1, grace_seconds=1.0))
        assert service.program is not None
        service.program.kill()
        await service.ends()
        service.start()
        end = await service.told(State.ENDED)
        assert (end.exit_code, end.killed) == (137, True)

    play(tmp_path, script)


async def _read(service: Service) -> bytes:
    async with service.peer.stream(runner_api.STDOUT, ReadOutput(task_id=Snowflake(1))) as answer:
        return await answer.read()


async def _read_or_nothing(service: Service) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return await asyncio.to_thread((service.directory / "state/logs/1/1/stdout").read_bytes)
    return b""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"KOHAKURIVER_PROCESS_ENGINE_ALLOWED": "false"}, "PROCESS_ENGINE_ALLOWED"),
        ({"KOHAKURIVER_CLUSTER_SECRET_FILE": "/nowhere/secret"}, "there is no cluster secret; copy it from the host"),
        ({"loose": "yes"}, "chmod 600"),
    ],
)
def test_what_it_cannot_start_without_is_said_in_one_line(
    tmp_path: Path, change: dict[str, str], complaint: str
) -> None:
    async def script(service: Service) -> None:
        if change.pop("loose", ""):
            (tmp_path / "secret").chmod(0o644)
        service.start(**change)
        assert await service.ends() != 0
        (line,) = (tmp_path / "log").read_text().splitlines()
        assert complaint in line

    play(tmp_path, script)
