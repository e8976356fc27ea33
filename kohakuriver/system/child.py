"""Run a command as a person would in a terminal, and see each line when it comes."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kohakuriver.model.errors import Unavailable

LINE_LIMIT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a command showed: its exit code, its lines (both streams, as a terminal mixes them), and when each came.

    Times are monotonic seconds.
    """

    code: int
    lines: tuple[str, ...]
    times: tuple[float, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


async def run_child(
    command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None], limit_seconds: float
) -> Seen:
    """Run a command to its end; raises Unavailable when it takes longer than the limit, and then ends it."""
    child = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=LINE_LIMIT_BYTES,
    )
    lines: list[str] = []
    times: list[float] = []
    try:
        async with asyncio.timeout(limit_seconds):
            assert child.stdout is not None
            async for raw in child.stdout:
                lines.append(raw.decode(errors="replace").rstrip("\n"))
                times.append(time.monotonic())
                on_line(lines[-1])
            code = await child.wait()
    except TimeoutError:
        raise Unavailable(f"`{' '.join(command)}` did not end in {limit_seconds:.0f} seconds") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            await child.wait()
    return Seen(code, tuple(lines), tuple(times))
