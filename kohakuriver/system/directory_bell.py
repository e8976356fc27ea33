"""News of directories from the kernel, by inotify(7): only that something happened, for whoever then looks himself."""

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress

_CREATE, _DELETE, _MODIFY, _ATTRIB, _MOVED = 0x100, 0x200, 0x2, 0x4, 0xC0
_DELETE_SELF, _MOVE_SELF, _ONLYDIR = 0x400, 0x800, 0x01000000
_EVENTS = _CREATE | _DELETE | _MODIFY | _ATTRIB | _MOVED | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_READ_BYTES = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryBell:
    """Rings when something happens in a directory that is watched; raises OSError when the kernel has no more of them."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._ring = ring
        asyncio.get_running_loop().add_reader(self._descriptor, self._heard)

    def watch(self, directory: int) -> None:
        """Watch an open directory; again is no more. Raises OSError when there are too many."""
        path = f"/proc/self/fd/{directory}".encode()
        if _libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(_EVENTS)) < 0:
            number = ctypes.get_errno()
            if number != errno.ENOTDIR:
                raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Watch nothing any more; on the event loop's thread."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._descriptor, _READ_BYTES):
                pass
        self._ring()
