"""All terminal sessions of a node: begins them, keeps them a while when nobody holds them, ends them."""

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from kohakuriver.model.errors import NotFound, RiverError, TooMany
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.model.terminal import SHELLS
from kohakuriver.runner.attempt import Held
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.terminal_session import Session
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.system.engine_exec import ExecSpec
from kohakuriver.system.rooted import Root

MOST_SESSIONS, MOST_IN_ONE = 500, 32
SWEEP_SECONDS = 1.0
DIRECTORIES = ("/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin")
DEFAULT_TERM = "xterm-256color"


@dataclass(slots=True)
class Terminals:
    """The sessions, by id."""

    bench: Bench
    workloads: Workloads
    _sessions: dict[str, Session] = field(default_factory=dict)

    async def begin(self, held: Held, user: str, asked: StartTerminal) -> Session:
        """A new session; raises Conflict, NotFound (no shell), EngineFailed, TooMany."""
        self._refuse_too_many(held.key)
        engine = self.bench.engine
        argv = tuple(asked.argv) or (await asyncio.to_thread(_find_shell, (await self._pid(held.key)), asked.shell),)
        spec = ExecSpec(
            argv=argv,
            tty=asked.tty,
            env={"TERM": asked.term or DEFAULT_TERM} if asked.tty else {},
            rows=asked.rows,
            columns=asked.columns,
        )
        process = await engine.exec(held.key, spec)
        session = Session(held.key, user, process, self.bench.clock.monotonic(), on_screen=asked.tty)
        self._sessions[session.id] = session
        self.bench.loops.spawn(f"terminal of {held.key.task_id}", session.run())
        self.bench.loops.spawn(f"input of {held.key.task_id}", session.feed())
        return session

    def find(self, key: WorkloadKey, session_id: str, user: str) -> Session:
        """A session of this person; raises NotFound."""
        session = self._sessions.get(session_id)
        if session is None or (session.key, session.user) != (key, user):
            raise NotFound("the session has ended")
        return session

    def latest(self, key: WorkloadKey, session_id: str) -> Session:
        """The session of that id, or the one begun last in the workload; raises NotFound."""
        found = [each for each in self._in(key) if session_id in ("", each.id) and not each.is_over]
        if not found:
            raise NotFound(f"nobody has a terminal in task {key.task_id}")
        return found[-1]

    def tell(self, key: WorkloadKey, text: str) -> None:
        """Write a line of ours into every terminal of a workload, so that whoever is in there sees it."""
        for session in self._in(key):
            session.tell(text)

    async def end(self, session: Session) -> None:
        """End it now."""
        if self._sessions.pop(session.id, None) is not None:
            await session.end()

    async def sweep(self) -> None:
        """End what nobody has held for a while, and what lives in an attempt that is over."""
        now, keep_seconds = self.bench.clock.monotonic(), self.bench.settings.terminal_keep_seconds
        for session in list(self._sessions.values()):
            lonely = session.lonely_since is not None and now - session.lonely_since >= keep_seconds
            held = self.workloads.find(*session.key)
            is_left = held is None or held.over or held.departed
            if lonely or (is_left and session.holder is None):
                self.bench.loops.spawn("end of a terminal", self.end(session))

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self.end(session) for session in list(self._sessions.values())))

    def _in(self, key: WorkloadKey) -> Iterator[Session]:
        return (session for session in self._sessions.values() if session.key == key)

    def _refuse_too_many(self, key: WorkloadKey) -> None:
        if len(self._sessions) >= MOST_SESSIONS or sum(1 for _ in self._in(key)) >= MOST_IN_ONE:
            raise TooMany("too many terminals are open here", {"retry_after_seconds": 60})

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
