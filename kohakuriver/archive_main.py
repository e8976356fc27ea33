"""The first file Python runs in the .pyz: it goes straight to the unpacked folder, or says in a sentence why not."""
# Any Python 3 must parse and run this file, so it has no f-strings, no annotated variables and no later syntax.
# It is compiled afresh at every start, so it is short: what happens only once lies in launcher.py.
# ruff: noqa: UP031

import os
import sys
import time

BUILD = "@BUILD@"
MACHINE = "@MACHINE@"
PYTHONS = "@PYTHONS@"
GLIBC = "@GLIBC@"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOT_MARK = ".boot"
LOCK = ".in-use"
SETTLED_SECONDS = 120
INTERRUPTED = 130


def refusal() -> str:
    """Return why this Python or this machine cannot run the file, an empty string if it can."""
    python = getattr(getattr(sys, "implementation", None), "name", "python").replace("cpython", "CPython")
    if "t" in getattr(sys, "abiflags", ""):
        python = "free-threaded " + python
    version = "%d.%d" % sys.version_info[:2]
    uname = os.uname() if hasattr(os, "uname") else (sys.platform, "", "", "", "this machine")
    machine = "%s %s" % (uname[4] if sys.maxsize > 2**32 else "32-bit", uname[0])
    libc = glibc_version()
    fits = python == "CPython" and version in PYTHONS.split() and machine == MACHINE + " Linux"
    if fits and libc >= tuple(map(int, GLIBC.split("."))):
        return ""
    return "kohakuriver.pyz needs CPython %s on %s Linux with glibc %s or newer, but this is %s %s on %s with %s." % (
        " or ".join(PYTHONS.split()),
        MACHINE,
        GLIBC,
        python,
        version,
        machine,
        "glibc %d.%d" % libc if libc else "no glibc",
    )


def glibc_version() -> "tuple[int, ...]":
    """Return the C library's version as (major, minor), an empty tuple if it is not glibc."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()
    except (AttributeError, OSError, ValueError):
        return ()


def distrust(folder: str, user: int) -> str:
    """Return how somebody else could change the code in the folder before the user runs it, else an empty string."""
    root = os.path.dirname(folder)
    paths = [folder, root]
    while user == 0 and paths[-1] != "/":
        paths.append(os.path.dirname(paths[-1]))
    for path in paths:
        try:
            info = os.lstat(path)
        except OSError:  # not there yet: we shall make it ourselves
            continue
        if info.st_uid not in (0, user):
            return "%s belongs to user id %d" % (path, info.st_uid)
        open_to_others = info.st_mode & (0o022 if user == 0 or path == folder else 0o002)
        sticky_protects = info.st_mode & 0o1000 and path != folder and (user or path != root)
        if open_to_others and not sticky_protects:
            return "other users can write to %s" % path
    return ""


def boot_id() -> str:
    """Return what names the time since this machine was switched on."""
    try:
        with open(BOOT_ID) as file:
            return file.read()
    except OSError:
        return ""


def settled(folder: str) -> bool:
    """Tell whether the files can be relied on: a power cut soon after they were written may have left them empty."""
    mark = os.path.join(folder, BOOT_MARK)
    if not os.path.exists(mark):
        return True
    with open(mark) as file:
        same_boot = file.read() == boot_id()
    if same_boot and time.time() - os.stat(mark).st_mtime > SETTLED_SECONDS:
        try:
            os.unlink(mark)
        except OSError:  # another process was faster, or the folder cannot be written: the next start looks again
            pass
    return same_boot


def hold(folder: str) -> int:
    """Return a descriptor that keeps the folder from being cleaned, -1 if it must be unpacked first."""
    import fcntl

    lock = os.path.join(folder, LOCK)
    try:
        held = os.open(lock, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
        except OSError:  # a file system without locks: there the cleaner gets none either, and leaves the folder
            pass
        if os.path.samestat(os.fstat(held), os.stat(lock)) and settled(folder):
            return held
        os.close(held)
    except FileNotFoundError:  # never unpacked, or cleaned between two of our looks
        pass
    return -1


def start() -> int:
    """Run the program from its folder, which is unpacked first if need be, and return its exit code."""
    sys.pycache_prefix = None  # the byte code lies beside the modules, wherever the user keeps his own
    archive = os.path.dirname(os.path.abspath(__file__))
    root = os.path.realpath(os.path.expanduser(os.environ.get("SHIV_ROOT") or "~/.shiv"))
    folder = os.path.join(root, "kohakuriver-%s-%s-%s" % (MACHINE, BUILD, sys.implementation.cache_tag))
    problem = distrust(folder, os.geteuid())
    if problem:
        return fail("%s: set SHIV_ROOT to a folder that no other user can write to." % problem)
    try:
        held = hold(folder)
        if held < 0:
            held = __import__("_launcher").unpack(  # launcher.py, from the top of the archive
                archive, folder, LOCK, (BOOT_MARK, boot_id()), hold
            )
    except OSError as error:
        return fail("%s: set SHIV_ROOT to a folder that this user can write to." % error)
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.path[0] = folder
    from kohakuriver.__main__ import main

    return main()


def fail(why: str) -> int:
    """Say in a sentence that the program cannot start, and return the exit code for it."""
    sys.stderr.write("kohakuriver.pyz does not start, because %s\n" % why)
    return 1


if __name__ == "__main__":
    sys.exit(refusal() or start())
