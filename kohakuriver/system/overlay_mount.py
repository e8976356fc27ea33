"""The layers of a container that does not run, mounted where nobody sees it, and gone with whoever looks.

A thread takes a mount namespace of its own, mounts there, opens the mounted root, unmounts it and ends. The mount lives
on behind the open descriptor alone, and goes away with it, also when this program is killed.
"""

import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.model.errors import NotAllowed

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 1, 2, 4, 0x4000, 1 << 18
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of overlay2: `directory` holds them all, the others are paths relative to it, `lower` uppermost first.

    Short relative names, because the kernel takes no more than a page of options.
    """

    directory: Path
    lower: tuple[str, ...]
    upper: str
    work: str

    def options(self, writable: bool) -> str:
        """What overlayfs is told; read-only, nothing of it is taken from a container that starts meanwhile."""
        if writable:
            return f"lowerdir={':'.join(self.lower)},upperdir={self.upper},workdir={self.work}"
        return f"lowerdir={':'.join((self.upper, *self.lower))}"


def layers_at(upper: Path) -> Layers:
    """The layers of Docker's container whose own is `upper` (`…/overlay2/ID/diff`); raises OSError."""
    own = upper.parent
    lower = (own / "lower").read_text("ascii").strip().split(":")
    return Layers(own.parent, tuple(lower), f"{own.name}/diff", f"{own.name}/work")


def open_layers(layers: Layers, writable: bool) -> int:
    """A descriptor of the root that the layers make together; blocks. Raises NotAllowed, OSError."""
    opened: list[int | OSError] = []

    def work() -> None:
        try:
            opened.append(_mount_here(layers, writable))
        except OSError as refused:
            opened.append(refused)

    thread = threading.Thread(target=work, name="mount")
    thread.start()
    thread.join()
    (found,) = opened
    if isinstance(found, PermissionError):
        raise NotAllowed("the files of what does not run can be reached by a runner that is root only")
    if isinstance(found, OSError):
        raise found
    return found


def _mount_here(layers: Layers, writable: bool) -> int:
    """Changes the namespace and the working directory of the thread for good: only for one that ends."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    os.chdir(layers.directory)
    flags = _MS_NOSUID | _MS_NODEV | (0 if writable else _MS_RDONLY)
    _mount(b"overlay", b".", b"overlay", flags, layers.options(writable).encode())
    opened = os.open(layers.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _check(_libc.umount2(os.fsencode(layers.directory), _MNT_DETACH))  # from now on it is `/` and stands nowhere
    return opened


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None) -> None:
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), options))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
