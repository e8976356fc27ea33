"""The process engine: workloads are plain processes of the node, without a container.

They are started and watched by supervisors, which a keeper forks, so that this program may die at any moment. This
file only talks to the keeper and starts it when there is none; see `process_keeper` and `process_supervisor`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kohakuriver
from kohakuriver.model.errors import Conflict, EngineFailed, NotAllowed, from_wire
from kohakuriver.model.execution import ExecSession, ExecSpec, Inside
from kohakuriver.system import process_journal
from kohakuriver.system.engine import ContainerSpec, EngineInfo, Exit, Observed, Phase, WorkloadKey
from kohakuriver.system.hanging_up import end_orphans
from kohakuriver.system.process_exec import Beside, begin_exec
from kohakuriver.system.process_keeper import LOG_NAME, SOCKET_NAME, WORKLOADS_NAME
from kohakuriver.system.process_plan import Look, Plan
from kohakuriver.system.process_spec import MINIMAL_PATH, plan_of
from kohakuriver.system.rooted import Root

_TRIES = 5
_SPAWN_SECONDS = 30.0
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]);from kohakuriver.system.process_keeper import main; main(*sys.argv[2:])"


class KeeperLost(Exception):
    """The keeper died before it answered; asking its successor does no harm."""


class ProcessEngine:
    """An `Engine` without containers: images mean nothing to it; mounts and privileges it refuses.

    `state_directory` must be private to this user and on a local disk. Memory, CPU and number of processes are limited
    by control groups where the machine lets us make them and `control_groups` says so; otherwise only the memory of
    each single process is. Without containers there can be no VPS.
    """

    workspaces = None

    def __init__(self, state_directory: Path, cluster: str, node: str, *, control_groups: bool = True) -> None:
        self._control_groups = control_groups
        self._root = state_directory.absolute() / f"{quote(cluster, safe='')}@{quote(node, safe='')}"
        self._link: _Link | None = None
        self._linking = asyncio.Lock()
        self._open = False
        self._known: set[WorkloadKey] = set()
        self._news: asyncio.Queue[WorkloadKey | None] = asyncio.Queue()
        self._unheard: set[WorkloadKey] = set()

    @property
    def images(self) -> None:
        """A process needs none."""

    async def open(self) -> None:
        self._open = True
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(self._root)
        await end_orphans(str(self._root))
        await self._ask("describe")

    async def close(self) -> None:
        self._open = False
        if self._link is not None:
            await self._link.close()
        self._news.put_nowait(None)

    async def describe(self) -> EngineInfo:
        told = await self._ask("describe")
        version = f"cgroup v{told['cgroup']}" if told["cgroup"] else "no control groups"
        return EngineInfo("process", version, limits_memory=told["memory"], limits_cpu=told["cpu"], gpus=True)

    async def ensure_image(self, image: str) -> None:
        """There are no images."""

    async def create(self, spec: ContainerSpec) -> None:
        await self._ask("create", spec.key, plan=plan_of(spec, os.path.expanduser("~")))

    async def start(self, spec: ContainerSpec) -> None:
        await self._ask("start", spec.key)

    async def adopt(self, spec: ContainerSpec) -> None:
        await self.observe(spec.key)

    async def signal(self, key: WorkloadKey, number: int) -> None:
        await self._ask("signal", key, number=int(number))

    async def pause(self, key: WorkloadKey) -> None:
        await self._ask("pause", key)

    async def resume(self, key: WorkloadKey) -> None:
        await self._ask("resume", key)

    async def observe(self, key: WorkloadKey) -> Observed:
        return _observed(await self._ask("observe", key))

    async def observe_all(self) -> list[Observed]:
        found = [_observed(look) for look in await self._ask("observe_all")]
        self._known |= {seen.key for seen in found}
        return found

    async def finish_logs(self, spec: ContainerSpec) -> None:
        """Supervisors tell an exit only when the files are complete."""

    async def remove(self, key: WorkloadKey) -> None:
        await self._ask("remove", key)
        self._known.discard(key)

    async def exec(self, key: WorkloadKey, spec: ExecSpec) -> ExecSession:
        return begin_exec(await self._beside(key), spec, str(self._root))

    async def inside(self, key: WorkloadKey) -> Inside:
        return Inside((await self._beside(key)).main[0])

    async def _beside(self, key: WorkloadKey) -> Beside:
        if (await self.observe(key)).phase is not Phase.RUNNING:
            raise Conflict(f"task {key.task_id} does not run")
        return await asyncio.to_thread(_read_beside, self._root / WORKLOADS_NAME / f"{key.task_id}-{key.attempt}")

    async def open_root(self, key: WorkloadKey, writable: bool) -> Root:
        """There is none: what it sees as `/` is the node's own."""
        await self.observe(key)
        raise NotAllowed("without a container a task's files are those of its node: they are not handed out")

    async def events(self) -> AsyncIterator[WorkloadKey]:
        while (key := await self._news.get()) is not None:
            self._unheard.discard(key)
            yield key
        self._news.put_nowait(None)

    def hear(self, key: WorkloadKey) -> None:
        """Pass on that something changed; once is enough until somebody has listened."""
        if key not in self._unheard:
            self._unheard.add(key)
            self._news.put_nowait(key)

    def lost(self) -> None:
        """The keeper is gone: whoever looks at any of ours now will have another one started, and see the truth."""
        for key in self._known if self._open else ():
            self.hear(key)

    async def _ask(self, do: str, key: WorkloadKey | None = None, **fields: Any) -> Any:
        if key is not None:
            self._known.add(key)
        for _ in range(_TRIES):
            link = await self._linked()
            try:
                return await link.ask({"do": do, "key": key, **fields})
            except KeeperLost:
                continue
        raise EngineFailed(f"the keeper of the process engine dies again and again: see {self._root / LOG_NAME}")

    async def _linked(self) -> "_Link":
        async with self._linking:
            if not self._open:
                raise EngineFailed("the process engine is closed")
            if self._link is None or self._link.is_lost:
                self._link = await self._connect()
            return self._link

    async def _connect(self) -> "_Link":
        for _ in range(_TRIES):
            try:
                return await _link_to(self._root, self)
            except (FileNotFoundError, ConnectionError):
                with contextlib.suppress(KeeperLost):
                    await asyncio.to_thread(_spawn_keeper, self._root, self._control_groups)
        raise EngineFailed(f"the keeper of the process engine cannot be reached: see {self._root / LOG_NAME}")


class _Link(asyncio.Protocol):
    """One connection to a keeper; answers go to who asked, news to the engine."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._unread = b""
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "changed" in message:
                self._engine.hear(WorkloadKey(*message["changed"]))
            else:
                self._answered(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._closed.set_result(None)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(KeeperLost())
        self._engine.lost()

    async def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and wait for its answer; raises KeeperLost, or what the keeper answered."""
        if self.is_lost or self._transport is None:
            raise KeeperLost
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._transport.write(json.dumps({"id": number, **request}).encode() + b"\n")
        try:
            return await asked
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
            await self._closed

    def _answered(self, message: dict[str, Any]) -> None:
        asked = self._asked.get(message["id"])
        if asked is None or asked.done():  # whoever asked was cancelled
            return
        if "error" in message:
            asked.set_exception(from_wire(*message["error"]))
        else:
            asked.set_result(message["value"])


async def _link_to(root: Path, engine: ProcessEngine) -> _Link:
    """Connect by way of the directory's descriptor, for the name of a socket may only be 107 bytes long."""
    directory = os.open(root, os.O_PATH)
    try:
        path = f"/proc/self/fd/{directory}/{SOCKET_NAME}"
        _, link = await asyncio.get_running_loop().create_unix_connection(lambda: _Link(engine), path)
    finally:
        os.close(directory)
    return link


def _spawn_keeper(root: Path, control_groups: bool) -> None:
    """Start a keeper and return when it answers; it is nobody's child then.

    Raises KeeperLost when it was killed before, EngineFailed when it cannot be started.
    """
    package_parent = Path(kohakuriver.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(package_parent), str(root)]
    command += ["groups" if control_groups else "tree"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": MINIMAL_PATH},
            timeout=_SPAWN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineFailed(f"the keeper of the process engine does not start: {error}", retry_elsewhere=True) from None
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        if not complaint:
            raise KeeperLost
        raise EngineFailed(f"the keeper of the process engine does not start: {complaint[-1]}", retry_elsewhere=True)


def _read_beside(directory: Path) -> Beside:
    """What the keeper wrote down of a workload that runs."""
    plan: Plan = json.loads((directory / "plan").read_bytes())
    return Beside(process_journal.read(str(directory / "journal"))["main"], plan["env"], plan["working_dir"])


def _refuse_foreign(root: Path) -> None:
    """What another user could write would run as this one; raises EngineFailed."""
    status = root.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EngineFailed(
            f"{root} belongs to another user or can be written by others; give it to this one, mode 0700"
        )


def _observed(look: Look) -> Observed:
    exit = None if look["exit"] is None else Exit(*look["exit"])
    key = WorkloadKey(*look["key"])
    return Observed(key, Phase(look["phase"]), exit, look["started_at"], look["finished_at"])
