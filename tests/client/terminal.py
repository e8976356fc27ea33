"""A terminal for the tests: the client runs behind it, and what it paints is kept as it came."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.client.conftest import spawn

PATIENCE_SECONDS = 20.0


@dataclass
class Terminal:
    """A client that believes it talks to a person."""

    process: "subprocess.Popen[bytes]"
    master: int
    painted: bytearray = field(default_factory=bytearray)

    def read_until(self, wanted: Callable[[bytes], bool] = lambda painted: False) -> bytes:
        """All that was painted, once it is what is wanted or the client has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted(bytes(self.painted)):
            assert time.monotonic() < deadline, bytes(self.painted)
            if not select.select([self.master], [], [], 0.5)[0]:
                continue
            try:
                self.painted += os.read(self.master, 65536)
            except OSError:  # the client has ended
                break
        return bytes(self.painted)

    def ended(self) -> tuple[int, bytes]:
        """Exit code and everything that was painted."""
        self.read_until()
        return self.process.wait(PATIENCE_SECONDS), bytes(self.painted)

    def resize(self, columns: int, lines: int) -> None:
        set_size(self.master, columns, lines)


def set_size(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextmanager
def on_terminal(
    *words: str, columns: int = 80, lines: int = 24, variables: Mapping[str, str] = {}
) -> Iterator[Terminal]:
    """Run a command on a terminal of that size."""
    master, slave = pty.openpty()
    set_size(slave, columns, lines)
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", **variables}
    process = spawn(*words, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
                    preexec_fn=_own_terminal)  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _own_terminal() -> None:
    """In the child: the terminal is its controlling one, so that resizing it is told by a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
