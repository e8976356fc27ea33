"""What a process is that is started inside a running workload, whatever engine runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

OUT, ERR = 1, 2
NOT_RUNNABLE, NO_SUCH_PROGRAM = 126, 127  # exit codes, as shells have them


class Inside(NamedTuple):
    """A process of the workload as this machine numbers it: by it one finds the workload's root and its network."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """What is to be started.

    `argv` is the program, found by the workload's PATH, and its arguments. Without `tty` there are two outputs apart.
    `env` comes on top of the workload's; empty `working_dir` and `user` mean the workload's own.
    """

    argv: tuple[str, ...]
    tty: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""
    rows: int = 24
    columns: int = 80


class ExecSession(Protocol):
    """One such process; it ends with its session. One reader and one writer at a time.

    Nothing but `wait` fails because it has ended. A program that cannot be run ends with 126 or 127 and says why.
    """

    async def read(self) -> tuple[int, bytes] | None:
        """What it wrote next (`OUT` or `ERR`, which a tty does not tell apart); None at the end."""

    async def write(self, data: bytes) -> None:
        """Give it input, no faster than it reads."""

    async def write_eof(self) -> None:
        """There is no more input."""

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal another size; nothing happens without a tty."""

    async def signal(self, number: int) -> None:
        """Send it a signal."""

    async def wait(self) -> int:
        """Its exit code (128+n when signal n ended it); raises EngineFailed when nobody can know it."""

    async def close(self) -> None:
        """End it, if it has not ended, with all that hangs up with it; let go of everything."""
