"""Opening files by openat2(2), which keeps a path below a directory whatever links and `..` are in it.

Numbers and flags are those of the kernel's `linux/openat2.h`; it is there from Linux 5.6 on.
"""

import ctypes
import errno
import os

IN_ROOT = 0x10  # `/` and `..` stop at the directory, as after chroot(2)
BENEATH = 0x08  # whatever leads out of the directory is an error
NO_MAGICLINKS = 0x02  # no links of /proc that lead anywhere
NO_SYMLINKS = 0x04
NO_XDEV = 0x01  # no other mounts
_OPENAT2 = 437  # the same on every architecture
_TRIES = 100
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """A descriptor of what is at `path` below an open directory; raises OSError.

    A tree that is changed while it is walked makes the kernel give up (EAGAIN) rather than be wrong; then again.
    """
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_TRIES):
        opened: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if opened >= 0:
            return opened
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def refuse_mount(directory: int, name: str) -> None:
    """Raise OSError (EBUSY) when something is mounted there.

    Whoever sees the mount gets that from the kernel itself. From outside of its namespace the place could be taken
    away, and the mount with it.
    """
    try:
        os.close(openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, NO_XDEV))
    except FileNotFoundError:
        return
    except OSError as refused:
        if refused.errno != errno.EXDEV:
            raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name) from None


def file_system_of(descriptor: int) -> int:
    """The magic number of the file system something is on (`linux/magic.h`); raises OSError."""
    told = (ctypes.c_long * 32)()  # `struct statfs` begins with it, and is smaller
    if _libc.fstatfs(ctypes.c_int(descriptor), ctypes.byref(told)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return told[0] & 0xFFFFFFFF


def sync_file_system(directory: int) -> None:
    """Return when all that was written to the file system of an open directory is on disk; raises OSError."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        if _libc.syncfs(ctypes.c_int(opened)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(opened)


def begin_to_store(descriptor: int, offset: int, count: int) -> None:
    """Have the disk begin to write what was written there, so that less is left for the fsync; only a wish."""
    _libc.sync_file_range(
        ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(count), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
    )
