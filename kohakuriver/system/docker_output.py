"""The two log files of a workload: appended to byte by byte, cut at their limit, never cut twice."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from kohakuriver.system.docker_frames import STDERR, STDOUT, Piece
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME, cut_marker

_MODE = 0o644


class LogFile:
    """One file; what it holds is the beginning of what the program wrote, and then perhaps the marker."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        self._limit_bytes = limit_bytes
        self._marker = cut_marker(limit_bytes)
        self._size_bytes = os.fstat(self._descriptor).st_size
        # A marker that was begun is ended: whoever wrote its first byte knew of more output.
        self._waiting = self._marker[self._size_bytes - limit_bytes :] if self.is_full else b""

    @property
    def held_bytes(self) -> int:
        """How much of the program's output it holds."""
        return min(self._size_bytes, self._limit_bytes)

    @property
    def is_full(self) -> bool:
        """Whether the marker is there, and nothing more will come."""
        return self._size_bytes > self._limit_bytes

    def append(self, data: bytes) -> None:
        """Take the next output of the program, to be written by `flush`; what is beyond the limit becomes one marker."""
        if not data or self.is_full:
            return
        room_bytes = self._limit_bytes - self._size_bytes
        if len(data) > room_bytes:
            data = data[:room_bytes] + self._marker
        self._size_bytes += len(data)
        self._waiting += data

    def flush(self) -> None:
        """Write what waits; raises OSError when the disk does not take it, which keeps waiting then."""
        while self._waiting:
            self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]

    def read(self, offset: int, size_bytes: int) -> bytes:
        """What it holds of the program's output there: shorter at the end."""
        size_bytes = min(size_bytes, self.held_bytes - offset)
        return os.pread(self._descriptor, size_bytes, offset) if size_bytes > 0 else b""

    def sync(self) -> None:
        """Return when everything is on disk."""
        self.flush()
        if self._size_bytes:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class Output:
    """Both files of a workload, for use in worker threads.

    Methods raise OSError when the disk does not take the bytes; they are kept, and `flush` tries again. The lock is
    there because a reader that was cancelled may still have a write under way in its thread.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.files = {
            STDOUT: LogFile(directory / STDOUT_NAME, limit_bytes),
            STDERR: LogFile(directory / STDERR_NAME, limit_bytes),
        }
        self._lock = threading.Lock()
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether nothing that may still come matters."""
        return all(file.is_full for file in self.files.values())

    def append(self, pieces: Iterable[Piece]) -> None:
        """Take output of both streams, in order."""
        gathered: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
        for stream, data in pieces:
            if stream in gathered:  # 0 and 3 are words of the daemon itself
                gathered[stream].append(data)
        with self._lock:
            for stream, parts in gathered.items():
                self.files[stream].append(b"".join(parts))
            self._each(LogFile.flush)

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._each(LogFile.flush)

    def sync(self) -> None:
        """Return when everything is on disk."""
        with self._lock:
            self._each(LogFile.sync)

    def close(self) -> None:
        """Let go of the files; may be called twice, and nothing is written afterwards."""
        with self._lock:
            self._each(LogFile.close)
            self._closed = True

    def _each(self, act: Callable[[LogFile], None]) -> None:
        if not self._closed:
            for file in self.files.values():
                act(file)
