"""Hear which files of a directory are written: the little of inotify(7) that this needs."""

import ctypes
import os
import struct
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY, _IN_CLOSE_WRITE = 0x2, 0x8
_HEAD = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class Inotify:
    """Listens from when it is made until `close`; `descriptor` can be read when there is news."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError where the kernel has no more of these to give."""
        self.descriptor = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_LIBC.inotify_add_watch(self.descriptor, os.fsencode(directory), _IN_MODIFY | _IN_CLOSE_WRITE))
        except OSError:
            self.close()
            raise

    def read(self) -> list[str]:
        """Names of files that were written or closed since, each once."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        names: dict[str, None] = {}
        at = 0
        while at < len(data):
            size = _HEAD.unpack_from(data, at)[3]
            at += _HEAD.size
            names[os.fsdecode(data[at : at + size].rstrip(b"\0"))] = None
            at += size
        return list(names)

    def close(self) -> None:
        """Hear no more."""
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
