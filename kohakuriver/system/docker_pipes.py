"""Save the last words of containers that end while the daemon is dead.

A container writes into two named pipes, which the daemon reads. What is in them when it ends while there is no daemon,
the next one throws away. So we hold the pipes open, never read while there is a daemon, and read what a container left
when it ended without one. Needs to be root on the daemon's machine; without that, such output is lost.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.system.docker_frames import STDERR, STDOUT

_NAMES = {STDOUT: "init-stdout", STDERR: "init-stderr"}
_READ_BYTES = 64 * 1024
POLL_SECONDS = 0.2


class Pipes:
    """Both pipes of one container, held open but not read."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError when they are not there any more, or not for us."""
        self.held: dict[int, int] = {}
        try:
            for stream, name in _NAMES.items():
                self.held[stream] = os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def drain(self, stream: int) -> bytes:
        """What the container left in a pipe that it has closed."""
        descriptor, parts = self.held.pop(stream), []
        with suppress(BlockingIOError):  # a daemon has come back and reads; the rest is its
            while part := os.read(descriptor, _READ_BYTES):
                parts.append(part)
        os.close(descriptor)
        return b"".join(parts)

    def close(self) -> None:
        """Let go."""
        while self.held:
            os.close(self.held.popitem()[1])


class PipeFinder:
    """Knows where the daemon keeps its pipes, once it has found those of one container."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._root: Path | None = None

    def open(self, container_id: str) -> Pipes | None:
        """The pipes of a running container; None when they cannot be had."""
        root = self._root or self._find_root(container_id)
        if root is None:
            return None
        try:
            pipes = Pipes(root / container_id)
        except OSError:
            return None
        self._root = root
        return pipes

    def _find_root(self, container_id: str) -> Path | None:
        """From the descriptors of the shim, which names the container on its command line and holds the pipes."""
        wanted = f"/{container_id}/{_NAMES[STDOUT]}"
        for process in self._processes(container_id.encode()):
            with suppress(OSError):
                for link in (process / "fd").iterdir():
                    with suppress(OSError):
                        if (target := os.readlink(link)).endswith(wanted):
                            return Path(target).parent.parent
        return None

    def _processes(self, word: bytes) -> Iterator[Path]:
        for process in self._proc.iterdir():
            with suppress(OSError):
                if process.name.isdigit() and word in (process / "cmdline").read_bytes():
                    yield process


@dataclass(frozen=True, slots=True)
class Watched:
    """The pipes of a container, and what to do with its last words: told the stream, and the bytes if any."""

    pipes: Pipes
    save: Callable[[int, bytes], None]


def save_last_words(watched: Sequence[Watched], until: threading.Event) -> None:
    """Wait, in a thread, for the ends of containers while there is no daemon; `until` says that there is one again."""
    waiting: dict[int, tuple[Watched, int]] = {
        descriptor: (each, stream) for each in watched for stream, descriptor in each.pipes.held.items()
    }
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, 0)  # POLLHUP comes all the same: whoever wrote has closed it
    while waiting and not until.is_set():
        for descriptor, _ in poll.poll(POLL_SECONDS * 1000):
            poll.unregister(descriptor)
            each, stream = waiting.pop(descriptor)
            if words := each.pipes.drain(stream):
                each.save(stream, words)


def last_words(directory: Path) -> Mapping[int, bytes]:
    """What was saved beside the log files."""
    found = {}
    for stream in _NAMES:
        with suppress(FileNotFoundError):
            found[stream] = _saved(directory, stream).read_bytes()
    return found


def keep_last_words(directory: Path, stream: int, words: bytes) -> None:
    """Save them beside the log files; raises OSError."""
    with _saved(directory, stream).open("ab") as file:
        file.write(words)


def drop_last_words(directory: Path) -> None:
    """The log files have them."""
    for stream in _NAMES:
        _saved(directory, stream).unlink(missing_ok=True)


def _saved(directory: Path, stream: int) -> Path:
    return directory / f".last-{_NAMES[stream].removeprefix('init-')}"
