"""All terminal sessions of a node: begins them, keeps them a while when nobody holds them, ends them."""

import asyncio
import stat
from dataclasses import dataclass, field

from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.execution import ExecSpec
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.model.terminal import SHELLS
from kohakuriver.runner.attempt import Held
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.system.rooted import Root
from kohakuriver.wire.terminal_session import Session
from kohakuriver.wire.terminal_sessions import DEFAULT_TERM, Sessions

DIRECTORIES = ("/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin")


@dataclass(slots=True)
class Terminals:
    """The sessions in attempts."""

    bench: Bench
    workloads: Workloads
    sessions: Sessions[WorkloadKey] = field(init=False)

    def __post_init__(self) -> None:
        bench = self.bench
        self.sessions = Sessions(bench.clock.monotonic, bench.loops.spawn, bench.settings.terminal_keep_seconds)

    async def begin(self, held: Held, user: str, asked: StartTerminal) -> Session[WorkloadKey]:
        """A new session; raises Conflict, NotFound (no shell), EngineFailed, TooMany."""
        self.sessions.refuse_too_many(held.key)
        engine = self.bench.engine
        argv = tuple(asked.argv) or (await asyncio.to_thread(_find_shell, (await self._pid(held.key)), asked.shell),)
        spec = ExecSpec(
            argv=argv,
            tty=asked.tty,
            env={"TERM": asked.term or DEFAULT_TERM} if asked.tty else {},
            rows=asked.rows,
            columns=asked.columns,
        )
        return self.sessions.add(held.key, user, await engine.exec(held.key, spec), asked)

    def tell(self, key: WorkloadKey, text: str) -> None:
        """Write a line of ours into every terminal of a workload, so that whoever is in there sees it."""
        for session in self.sessions.at(key):
            session.tell(text)

    async def sweep(self) -> None:
        """End what nobody has held for a while, and what lives in an attempt that is over."""
        await self.sessions.sweep(self._is_over)

    def _is_over(self, key: WorkloadKey) -> bool:
        held = self.workloads.find(*key)
        return held is None or held.over or held.departed

    async def _pid(self, key: WorkloadKey) -> int:
        return (await self.bench.engine.inside(key)).pid


def _find_shell(pid: int, named: str) -> str:
    """The path of a shell in the root of a process; raises NotFound."""
    names = (named,) if named else SHELLS
    with Root.of_process(pid) as root:
        for name in names:
            for path in (name,) if name.startswith("/") else (f"{directory}/{name}" for directory in DIRECTORIES):
                if _is_program(root, path):
                    return path
    raise NotFound(f"there is no {' and no '.join(names)} in it; name another shell, or a command")


def _is_program(root: Root, path: str) -> bool:
    try:
        found = root.stat(path)
    except RiverError:
        return False
    return stat.S_ISREG(found.status.st_mode) and bool(found.status.st_mode & 0o111)
