"""One log file of a workload: byte-exact up to its limit, with a visible line where bytes are missing."""

import os
from contextlib import suppress


class LogFile:
    """Takes output and never raises: a full disk costs output, which is then said in the file, not the workload."""

    def __init__(self, path: str, limit_bytes: int, cut_marker: bytes) -> None:
        """Raises OSError when the file cannot be made."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._left_bytes = limit_bytes
        self._cut_marker = cut_marker
        self._lost = ""

    def write(self, data: bytes) -> None:
        """Take what fits."""
        if self._left_bytes < 0:
            return
        kept = data[: self._left_bytes]
        if len(data) > self._left_bytes:
            self._left_bytes = -1
            self._put(kept + self._cut_marker)
        else:
            self._left_bytes -= len(data)
            self._put(kept)

    def finish(self) -> None:
        """Say what a disk that is still full did not take, in the place of the last that it took."""
        self._put(b"")
        if self._lost:
            size, said = os.fstat(self._descriptor).st_size, self._loss()
            with suppress(OSError):  # an empty file has no room for it
                os.pwrite(self._descriptor, said, max(0, size - len(said)))

    def close(self) -> None:
        """Take no more."""
        os.close(self._descriptor)

    def _loss(self) -> bytes:
        return f"\n[kohakuriver: output lost here: {self._lost}]\n".encode()

    def _put(self, data: bytes) -> None:
        if self._lost:
            data = self._loss() + data
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self._lost = os.strerror(error.errno or 0)
        else:
            self._lost = ""
