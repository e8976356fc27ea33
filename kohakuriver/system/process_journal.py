"""The journal of a started workload: an append-only file of JSON lines, and the lock that says its supervisor lives.

Its existence is the claim: whoever created the file may run the workload, nobody else, ever. The lock belongs to the
open file that the supervisor inherits, so the kernel gives it back at the supervisor's death, however it came.
"""

import contextlib
import errno
import fcntl
import json
import os

from kohakuriver.system.process_plan import Story


def claim(path: str) -> int:
    """Create and lock the journal, return its descriptor; raises FileExistsError when it was claimed before."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def take_over(path: str) -> int | None:
    """Lock the journal of a dead supervisor, return its descriptor; None while the supervisor lives."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def tell(descriptor: int, line: Story) -> None:
    """Append one line; raises OSError. It begins anew, so that a line which a full disk cut before it spoils nothing."""
    text = b"\n" + json.dumps(line).encode() + b"\n"
    if os.write(descriptor, text) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: str) -> Story:
    """Everything told so far; raises FileNotFoundError when nobody has claimed it."""
    with open(path, "rb") as file:
        return parse(file.read())


def parse(text: bytes) -> Story:
    """Everything that whole lines say; a line that a death cut short says nothing."""
    story: Story = {}
    for line in text.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):  # a full disk can cut a line that others follow
            story.update(json.loads(line))
    return story
