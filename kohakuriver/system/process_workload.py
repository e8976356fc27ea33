"""One workload on the keeper's disk and in its hands: what is known of it, and what can be done to it.

Its directory holds `plan` (its existence: created) and `journal` (claimed: it may have run). Both survive the keeper.
"""

import contextlib
import json
import os
import signal
import time

from kohakuriver.system import process_calls, process_journal
from kohakuriver.system.cgroup import Cgroups, Group
from kohakuriver.system.process_plan import Look, Plan, Story
from kohakuriver.system.process_tree import TreeGroup

KILLED = (128 + int(signal.SIGKILL), int(signal.SIGKILL), False)


class Workload:
    """`claimed`: it was given to a supervisor; `supervised`: that one may still live; `restarts`: it died too early."""

    def __init__(self, directory: str, plan: Plan, cgroups: Cgroups | None) -> None:
        self.plan, self.key = plan, (plan["task_id"], plan["attempt"])
        self.story: Story = {}
        self.claimed = self.supervised = False
        self.restarts = 0
        self.directory, self._journal, self._cgroups = directory, f"{directory}/journal", cgroups
        self._frozen = False

    @property
    def ended(self) -> bool:
        """Whether its exit is known."""
        return "exit" in self.story

    @property
    def group(self) -> Group:
        """Where its processes are found."""
        if self._cgroups is not None:
            return self._cgroups.group(os.path.basename(self.directory))
        if self.story.get("boot") != process_calls.boot_id():
            return TreeGroup([], [])  # those pids belong to strangers now
        return TreeGroup(self.story.get("supervisor", []), self.story.get("main", []))

    def look(self) -> Look:
        """What an observer sees."""
        phase = "exited" if self.ended else "created" if "started_at" not in self.story else "running"
        return {
            "key": self.key,
            "phase": "paused" if self._frozen and phase == "running" else phase,
            "exit": self.story.get("exit"),
            "started_at": self.story.get("started_at"),
            "finished_at": self.story.get("finished_at"),
        }

    def claim(self) -> int:
        """Make it certain that nobody else runs it; return the journal for its supervisor. Raises OSError."""
        journal = process_journal.claim(self._journal)
        self.claimed = True
        return journal

    def unclaim(self) -> None:
        """Its program never ran: it may be started."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._journal)
        self.claimed, self.story = False, {}

    def reread(self) -> None:
        """Learn what the journal says."""
        try:
            self.story = process_journal.read(self._journal)
            self.claimed = True
            if "main" in self.story or self.ended:
                self.story.setdefault("started_at", self.story.get("begun_at", 0.0))
        except FileNotFoundError:
            self.claimed = False
        self._frozen = not self.ended and "main" in self.story and self.group.is_frozen()

    def supervisor_lives(self) -> bool:
        """Ask the lock of the journal."""
        journal = process_journal.take_over(self._journal)
        if journal is None:
            return True
        os.close(journal)
        return False

    def record_end(self, exit: tuple[int, int | None, bool]) -> None:
        """Write down an end that its supervisor could not."""
        self.story["exit"], self.story["finished_at"] = exit, time.time()
        journal = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # on a full disk the next keeper comes to the same conclusion
            process_journal.tell(journal, {"exit": exit, "finished_at": self.story["finished_at"]})
        os.close(journal)
        self.group.remove()

    def signal(self, number: int) -> None:
        """Send it to every process; SIGKILL also thaws."""
        if number == signal.SIGKILL:
            self.kill()
        else:
            process_calls.signal_all(self._group_known().pids, number)

    def kill(self) -> None:
        """End every process of it, frozen or not."""
        self._group_known().kill()
        self._frozen = False

    def freeze(self) -> None:
        """Stop every process of it."""
        self._group_known().freeze()
        self._frozen = True

    def thaw(self) -> None:
        """Let every process of it go on."""
        self._group_known().thaw()
        self._frozen = False

    def delete(self) -> None:
        """Forget it on disk."""
        self.group.remove()
        _wipe(self.directory)

    def _group_known(self) -> Group:
        """The group; without control groups the journal must be read first to know the supervisor."""
        if self._cgroups is None and "supervisor" not in self.story:
            self.story = process_journal.read(self._journal) | self.story
        return self.group


def create(root: str, plan: Plan, cgroups: Cgroups | None) -> Workload:
    """Write a new workload down; raises OSError and leaves nothing then."""
    directory = f"{root}/{plan['task_id']}-{plan['attempt']}"
    os.mkdir(directory)
    try:
        with open(f"{directory}/plan", "wb") as file:
            file.write(json.dumps(plan).encode())
    except OSError:
        _wipe(directory)
        raise
    return Workload(directory, plan, cgroups)


def load_all(root: str, cgroups: Cgroups | None) -> list[Workload]:
    """Find what an earlier keeper wrote down; a plan that is not whole was never promised to anybody."""
    found = []
    for name in os.listdir(root):
        directory = f"{root}/{name}"
        try:
            with open(f"{directory}/plan", "rb") as file:
                workload = Workload(directory, json.loads(file.read()), cgroups)
        except (OSError, ValueError):
            _wipe(directory)
            continue
        workload.reread()
        found.append(workload)
    return found


def _wipe(directory: str) -> None:
    """Take a workload's directory away: the plan first, for without it the rest means nothing."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(directory), reverse=True):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
