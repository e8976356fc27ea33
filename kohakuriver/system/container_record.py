"""What the first process of a container puts down about it, and what that means beside Docker's word: pure."""

import errno
from dataclasses import dataclass, replace

from kohakuriver.system.engine import Exit, Observed, Phase

CANNOT_RUN, NO_PROGRAM = 126, 127
# What a daemon says of a container that its predecessor started, and whose end nobody told it.
LOST_EXIT_CODE = 255
# What we put into one: that the program will never begin; that it has ended before and may run once more.
BARRED, AGAIN = b"barred\n", b"again\n"


@dataclass(frozen=True, slots=True)
class Record:
    """One container's record: its file is written by `container_init/init.c`, where the format stands.

    Times are unix seconds. `pid` is the first process while it lives (-1 when its number cannot be seen), else 0. `errno` says why the program cannot be
    run, `lost_errno` why the disk did not take the last of its output. `is_barred`: it has not begun and never will.
    `is_again`: it ended before, and may begin once more.
    """

    pid: int = 0
    is_barred: bool = False
    is_again: bool = False
    is_claimed: bool = False
    claimed_at: float | None = None
    began_at: float | None = None
    errno: int = 0
    exit: Exit | None = None
    ended_at: float | None = None
    lost_errno: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether it is known if the program runs, or will never be."""
        return self.began_at is not None or self.ended_at is not None or (self.is_claimed and not self.pid)


def parse(text: bytes, pid: int) -> Record:
    """Read a record; a line that cannot be read says nothing, because a container's root may write what it likes."""
    is_barred, is_again = text == BARRED and not pid, text == AGAIN
    record = Record(pid=pid, is_barred=is_barred, is_again=is_again, is_claimed=bool(text) and not is_barred | is_again)
    for line in text.split(b"\n"):
        event, *words = line.split()[:8] or [b""]
        try:
            record = _with(record, event, words)
        except (ValueError, IndexError, OverflowError):
            continue
    return record


def _with(record: Record, event: bytes, words: list[bytes]) -> Record:
    if event == b"claimed":
        return replace(record, claimed_at=float(words[0]))
    if event == b"began":
        return replace(record, began_at=float(words[0]))
    if event == b"failed":
        number = int(words[0])
        code = NO_PROGRAM if number == errno.ENOENT else CANNOT_RUN
        return replace(record, errno=number, exit=Exit(code), ended_at=float(words[1]))
    if event == b"exited":
        code, signal, oom_kills, lost = map(int, words[:4])
        end = Exit(code & 0xFF, signal or None, bool(oom_kills))
        return replace(record, exit=end, lost_errno=lost, ended_at=float(words[4]))
    return record


def together(seen: Observed, record: Record | None) -> Observed:
    """What is true of a container of which Docker says `seen`.

    A daemon that is killed forgets what it was about to write down: that it started a container, how one ended. The
    record is right wherever it speaks. Where there is none, or its writer was killed too, Docker's word counts, unless
    it is the exit code that Docker makes up; then the code is lost. Of a VPS Docker must have noticed the end, because
    only then it gives out its files.
    """
    record = record or Record(is_claimed=seen.phase is not Phase.CREATED)
    began_at = record.began_at or record.claimed_at or seen.started_at
    if record.ended_at is not None:
        if seen.is_vps and seen.phase is Phase.RUNNING:
            return replace(seen, started_at=began_at)
        return replace(seen, phase=Phase.EXITED, exit=record.exit, started_at=began_at, finished_at=record.ended_at)
    if record.is_again:
        return seen
    if not record.is_claimed:
        return replace(seen, phase=Phase.CREATED, exit=None, started_at=None, finished_at=None)
    if record.pid or seen.phase in (Phase.RUNNING, Phase.PAUSED):
        phase = Phase.PAUSED if seen.phase is Phase.PAUSED else Phase.RUNNING
        return replace(seen, phase=phase, exit=None, started_at=began_at, finished_at=None)
    if seen.exit is not None and seen.exit.code != LOST_EXIT_CODE:
        return replace(seen, started_at=began_at)
    return replace(seen, phase=Phase.EXITED, exit=Exit(None), started_at=began_at)
