"""Whole trees of a root that is not trusted: walked and taken away by descriptors, so that no link is ever followed."""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

from kohakuriver.model.errors import Conflict
from kohakuriver.system.openat2 import BENEATH, NO_SYMLINKS, NO_XDEV, openat2, refuse_mount

MAX_DEPTH = 200  # each level keeps two descriptors open
Stop = Callable[[], bool]
_NOT_ENTERED = (errno.ENOTDIR, errno.ELOOP, errno.ENOENT, errno.EXDEV)


class Step(NamedTuple):
    """One thing of a tree by its name in an open directory; `path` is that from the top, which is empty itself.

    A directory comes again, `leaving`, behind all that is in it.
    """

    directory: int
    name: str
    path: str
    leaving: bool = False


class Stopped(Exception):
    """Nobody wants the result any more."""


class _Level(NamedTuple):
    """One open directory of a walk, and the step that led into it."""

    step: Step
    descriptor: int
    entries: "os._ScandirIterator[str]"

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


def never() -> bool:
    """Go on to the end."""
    return False


def walk(
    directory: int, name: str, stop: Stop = never, *, leave_out: Collection[str] = (), enters: bool = True
) -> Iterator[Step]:
    """Everything of a tree but the paths left out; other mounts are named, not entered.

    Unless it `enters`, only what is in the topmost directory.

    Raises OSError, Conflict when it is deeper than `MAX_DEPTH`, Stopped.
    """
    top = Step(directory, name, "")
    yield top
    levels = _enter(top)
    try:
        while levels:
            if stop():
                raise Stopped
            level = levels[-1]
            found = next(level.entries, None)
            if found is None:
                levels.pop().close()
                yield level.step._replace(leaving=True)
                continue
            step = Step(level.descriptor, found.name, f"{level.step.path}/{found.name}".lstrip("/"))
            if step.path in leave_out:
                continue
            yield step
            if enters and found.is_dir(follow_symlinks=False):
                if len(levels) >= MAX_DEPTH:
                    raise Conflict(f"there are more than {MAX_DEPTH} directories in each other")
                levels += _enter(step)
    finally:
        for level in levels:
            level.close()


def _enter(step: Step) -> list[_Level]:
    """The open directory; nothing when it is none any more, or another mount."""
    try:
        descriptor = openat2(step.directory, step.name, os.O_RDONLY | os.O_DIRECTORY, BENEATH | NO_SYMLINKS | NO_XDEV)
    except OSError as refused:
        if refused.errno in _NOT_ENTERED:
            return []
        raise
    return [_Level(step, descriptor, os.scandir(descriptor))]


def remove_tree(directory: int, name: str, stop: Stop = never) -> int:
    """Take away a directory with all that is in it, and count; raises OSError, Conflict, Stopped."""
    gone = 0
    for step in walk(directory, name, stop):
        if step.leaving:
            os.rmdir(step.name, dir_fd=step.directory)
            gone += 1
            continue
        with suppress(FileNotFoundError):
            mode = os.stat(step.name, dir_fd=step.directory, follow_symlinks=False).st_mode
            refuse_mount(step.directory, step.name)
            if not stat.S_ISDIR(mode):
                os.unlink(step.name, dir_fd=step.directory)
                gone += 1
    return gone
