"""The first start of a .pyz: unpacks it for this Python, compiles it, and clears away what older files have left."""
# It travels at the top of the archive as well, where it stands alone: it imports nothing of this package.

import fcntl
import marshal
import os
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

PAYLOAD = "site-packages/"
NEW_PREFIX = ".new-"
OLD_PREFIX = ".old-"
COMPILERS_MAX = 4
UNCHECKED_HASH = (1).to_bytes(4, "little")


def running_archive() -> Path | None:
    """Return the .pyz that this process was started from, None when it runs from a source tree."""
    archive = getattr(getattr(sys.modules["__main__"], "__loader__", None), "archive", None)
    return Path(archive).resolve() if archive else None


def unpack(archive: str, folder: str, lock: str, boot_mark: tuple[str, str], hold: Callable[[str], int]) -> int:
    """Unpack the archive into the folder unless another process just has, and return the descriptor that holds it.

    `lock` names the file in each unpacked folder that its users hold; `boot_mark` is a file (name, text) to leave in it.
    Raises OSError when the place cannot be written.
    """
    final = Path(folder)
    with narrow_umask(), root_lock(final.parent):
        held = hold(folder)
        if held >= 0:
            return held
        clear_leftovers(final.parent)
        if final.exists() and not retire(final, lock):
            return share(final / lock)  # somebody runs from it, so it is good
        fresh = final.with_name(f"{NEW_PREFIX}{final.name}-{os.getpid()}")
        try:
            fresh.mkdir()
            say(f"first start: unpacking into {folder}")
            extract(archive, fresh)
            compile_all(fresh, final)
            (fresh / boot_mark[0]).write_text(boot_mark[1])
            os.close(os.open(fresh / lock, os.O_CREAT | os.O_WRONLY, 0o600))
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        held = share(final / lock)
        retire_others(final, lock)
        clear_leftovers(final.parent)
        return held


def say(line: str) -> None:
    """Tell a person who waits what is going on; say nothing to a script."""
    if sys.stderr.isatty():
        print(f"kohakuriver: {line}", file=sys.stderr)


@contextmanager
def narrow_umask() -> Iterator[None]:
    """Make whatever is created meanwhile writable by its owner only."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    """Let one process at a time change the root; the kernel frees the lock when its holder dies.

    Compiling children inherit the descriptor, so the lock outlives a killed parent until the last of them is gone.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".kohakuriver.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def share(lock: Path) -> int:
    """Take the lock that keeps a folder in use, where the file system has locks, and return its descriptor."""
    descriptor = os.open(lock, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def extract(archive: str, target: Path) -> None:
    """Write the members that this Python can use: extension modules for other versions stay in the archive."""
    own_tag = f".{sys.implementation.cache_tag}-"
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            name = member.filename
            if name.startswith(PAYLOAD) and (".cpython-" not in name or own_tag in name):
                path = target / name.removeprefix(PAYLOAD)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read(member))


def compile_all(folder: Path, final: Path) -> None:
    """Compile every module in the folder for its final place, on up to four processors at once."""
    sources = sorted(folder.rglob("*.py"))
    count = min(COMPILERS_MAX, len(os.sched_getaffinity(0)))
    children: list[int] = []
    failed = False
    try:
        for index in range(1, count):
            children.append(fork_compiler(sources[index::count], folder, final))
        compile_each(sources[0::count], folder, final)
        while children:
            failed |= os.waitpid(children[-1], 0)[1] != 0
            children.pop()
    finally:
        for child in children:  # an error or Ctrl-C: nobody may write into the folder while it is deleted
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if failed:
        raise OSError(f"the byte code cannot be written to {folder}")


def fork_compiler(sources: list[Path], folder: Path, final: Path) -> int:
    """Compile in a child process and return its id."""
    child = os.fork()
    if child == 0:
        try:
            compile_each(sources, folder, final)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def compile_each(sources: list[Path], folder: Path, final: Path) -> None:
    """Write byte code (PEP 552) that is not checked against its source at every import, because nobody edits that.

    `py_compile` would do, but before Python 3.14 it takes no notice when the disk is full.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other people's modules could do better is no news to our user
        for source in sources:
            text = source.read_bytes()
            try:
                code = compile(text, str(final / source.relative_to(folder)), "exec", dont_inherit=True)
            except SyntaxError:  # a module for another Python, which this one will not import
                continue
            target = Path(cache_from_source(str(source)))
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(MAGIC_NUMBER + UNCHECKED_HASH + source_hash(text) + marshal.dumps(code))


def retire(folder: Path, lock: str) -> bool:
    """Move an unpacked folder out of the way and return True, or leave it and return False if somebody uses it."""
    used = folder / lock
    try:
        with (
            used.open("r+b") if used.exists() else nullcontext() as file
        ):  # without a lock nobody can be running from it
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(folder.with_name(f"{OLD_PREFIX}{folder.name}-{os.getpid()}"))
    except OSError:
        return False
    return True


def retire_others(current: Path, lock: str) -> None:
    """Retire the folders of other builds for the same kind of machine that nobody uses."""
    program, machine, build, *_ = current.name.split("-")
    for folder in current.parent.glob(f"{program}-{machine}-*"):
        if folder.name.split("-")[2] != build and folder.is_dir() and not folder.is_symlink():
            retire(folder, lock)


def clear_leftovers(root: Path) -> None:
    """Delete what a killed process left half unpacked and what has been retired; the root lock must be held."""
    for prefix in (NEW_PREFIX, OLD_PREFIX):
        for folder in root.glob(f"{prefix}kohakuriver-*"):
            shutil.rmtree(folder, ignore_errors=True)
