"""Standard input and output of a command that hands bytes on: as a raw terminal, or as pipes and files."""

import asyncio
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kohakuriver.client.termination import unwound_when_terminated

BLOCK_BYTES = 65536
STDIN, STDOUT, STDERR = 0, 1, 2


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return os.isatty(STDIN) and os.isatty(STDOUT)


def size() -> tuple[int, int]:
    """Lines and columns of our terminal."""
    with suppress(OSError):
        columns, rows = os.get_terminal_size(STDIN)
        if rows and columns:
            return rows, columns
    return 24, 80


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key comes at once and as it is, while the block runs."""
    before = termios.tcgetattr(STDIN)
    with unwound_when_terminated():
        try:
            tty.setraw(STDIN, termios.TCSADRAIN)  # what was typed already is not lost
            yield
        finally:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@contextmanager
def on_resize(act: Callable[[], None]) -> Iterator[None]:
    """`act` is called whenever the terminal has another size, while the block runs."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def read_input() -> bytes:
    """What comes next; empty at the end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(STDIN, _settle, ready)
    except PermissionError:  # a file is always ready
        return os.read(STDIN, BLOCK_BYTES)
    try:
        await ready
    finally:
        loop.remove_reader(STDIN)
    with suppress(OSError):
        return os.read(STDIN, BLOCK_BYTES)
    return b""


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def write_output(descriptor: int, data: bytes) -> None:
    """Write all of it; who does not read holds us up, and so the program at the other end."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
