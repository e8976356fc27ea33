"""Processes started inside running containers: over the daemon's socket, on the event loop.

The daemon has no way to end them, so we do, by the pid that it tells.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.execution import ERR, OUT, ExecSpec, Inside
from kohakuriver.system import process_calls
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_errors import ApiRefused, failed, not_started
from kohakuriver.system.docker_frames import Frames
from kohakuriver.system.docker_stream import RawStream, ask, request
from kohakuriver.system.hanging_up import MARK, hang_up

_UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.005, 0.5
_START_SECONDS, _PID_SECONDS = 10.0, 0.05
MOST_WORDS_BYTES = 64 * 1024
NOT_STARTED = (126, 127)  # the exit codes that the daemon notes when it cannot start one


async def begin_exec(client: DockerClient, container: str, spec: ExecSpec, mark: str) -> "DockerExec":
    """Start a process in a container (name or id); `mark` says whose it is, should we be killed.

    Raises NotFound, Conflict when the container does not run, and EngineFailed.
    """
    try:
        made = await client.act("POST", f"/containers/{quote(container)}/exec", _config(spec, mark))
        session = DockerExec(client, made["Id"], await _attach(client.socket, made["Id"], spec), spec.tty)
    except ApiRefused as refused:
        raise _understood(refused) from None
    try:
        await session.settle(spec)
    except EngineFailed:
        await session.close()
        raise
    return session


async def inside(client: DockerClient, container: str) -> Inside:
    """The first process of a running container; raises NotFound, Conflict, EngineFailed."""
    try:
        state = (await client.look(f"/containers/{quote(container)}/json"))["State"]
    except ApiRefused as refused:
        raise _understood(refused) from None
    if not state["Pid"]:
        raise Conflict("the container does not run")
    return Inside(state["Pid"])


class DockerExec:
    """One such process (an `ExecSession`)."""

    def __init__(self, client: DockerClient, exec_id: str, stream: RawStream, tty: bool) -> None:
        self._client, self._target, self._stream, self._tty = client, f"/exec/{exec_id}", stream, tty
        self._frames, self._ready = Frames(), deque[tuple[int, bytes]]()
        self._leader, self._began = [0, 0], True
        self._code: int | None = None

    async def settle(self, spec: ExecSpec) -> None:
        """Learn its pid, and give its terminal the size; raises EngineFailed."""
        facts = await self._look_until(_has_begun_or_ended, _START_SECONDS)
        if not facts["Pid"]:  # of what ended at once it is noted a moment later
            await asyncio.sleep(_PID_SECONDS)
            facts = await self._look_until(_has_begun_or_ended, _START_SECONDS)
        self._leader = process_calls.identity(facts["Pid"]) if facts["Pid"] else [0, 0]
        self._began = bool(facts["Pid"]) or facts["ExitCode"] not in NOT_STARTED
        await self.resize(spec.rows, spec.columns)

    async def read(self) -> tuple[int, bytes] | None:
        return await self._read() if self._began else await self._read_why()

    async def _read_why(self) -> tuple[int, bytes] | None:
        """Why it did not begin, in words for a person."""
        said = bytearray()
        while len(said) < MOST_WORDS_BYTES and (piece := await self._read()) is not None:
            said += piece[1]
        self._began = True
        if not said:
            return None
        text, self._code = not_started(said.decode(errors="replace"))
        return OUT if self._tty else ERR, text.replace("\n", "\r\n" if self._tty else "\n").encode()

    async def _read(self) -> tuple[int, bytes] | None:
        while not self._ready:
            data = await self._stream.read()
            if not data:
                return None
            if self._tty:
                return OUT, data
            self._ready.extend(self._frames.feed(data))
        return self._ready.popleft()

    async def write(self, data: bytes) -> None:
        if not self._stream.writer.is_closing():
            self._stream.writer.write(data)
            with suppress(OSError):
                await self._stream.writer.drain()

    async def write_eof(self) -> None:
        with suppress(OSError, RuntimeError):
            self._stream.writer.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        if self._tty:
            with suppress(ApiRefused):  # it has ended
                await self._client.act("POST", f"{self._target}/resize", h=str(rows), w=str(columns))

    async def signal(self, number: int) -> None:
        leader = self._leader
        process_calls.signal_all(lambda: leader[:1] if process_calls.is_alive(leader) else [], number)

    async def wait(self) -> int:
        facts = await self._look_until(lambda facts: not facts["Running"], None)
        code: int = facts["ExitCode"] if self._code is None else self._code
        return code

    async def close(self) -> None:
        await self._stream.close()
        await hang_up(self._leader)

    async def _look_until(self, is_so: Callable[[Any], bool], limit_seconds: float | None) -> Any:
        pause = _FIRST_LOOK_SECONDS
        try:
            async with asyncio.timeout(limit_seconds):
                while not is_so(facts := await self._client.look(f"{self._target}/json")):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_LOOK_SECONDS)
            return facts
        except ApiRefused as refused:
            raise failed("Docker has forgotten the process", refused) from None
        except TimeoutError:
            raise EngineFailed("Docker does not start the process") from None


def _has_begun_or_ended(facts: Any) -> bool:
    """The daemon agrees to a stream before it does anything: until then, too, nothing runs and there is no pid."""
    return bool(facts["Pid"]) or facts["ExitCode"] is not None


def _config(spec: ExecSpec, mark: str) -> dict[str, Any]:
    variables = {**spec.env, MARK: mark}
    return {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": spec.tty,
        "Cmd": list(spec.argv),
        "Env": [f"{name}={value}" for name, value in variables.items()],
        **({"WorkingDir": spec.working_dir} if spec.working_dir else {}),
        **({"User": spec.user} if spec.user else {}),
    }


async def _attach(socket: str, exec_id: str, spec: ExecSpec) -> RawStream:
    body: dict[str, Any] = {"Detach": False, "Tty": spec.tty}
    if spec.tty:
        body["ConsoleSize"] = [spec.rows, spec.columns]  # older daemons overlook it
    return await ask(socket, request("POST", f"/exec/{exec_id}/start", body, "HTTP/1.1", _UPGRADE))


def _understood(refused: ApiRefused) -> Exception:
    if refused.is_no_such_container:
        return NotFound("there is no such container")
    if refused.status == HTTPStatus.CONFLICT:
        return Conflict("nothing can be started in it now: it does not run, or it is paused")
    return failed("nothing can be started in the container", refused)
