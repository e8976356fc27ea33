"""A VPS: a long-lived workspace, which is a task that only waits, and what it has beyond a task."""

from dataclasses import dataclass
from enum import StrEnum

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import MAX_INTEGER, NO_CONTROL, VPS_NAME, Bounds, declare
from kohakuriver.model.lifecycle import FINAL, Status
from kohakuriver.model.public_key import MOST_CHARACTERS, check_public_key
from kohakuriver.model.task import TARGET, Submission, Task, WorkloadSpec

VPS_TYPE = "vps"
MOST_SECONDS = 10 * 365 * 86400
GONE = FINAL - {Status.STOPPED}  # nothing is left of a VPS in one of these

# The whole program of a VPS: it needs a shell and `sleep`, and nothing else in the image. Asked to end, it asks all
# other processes to end and waits for them; whoever is left at the end of the grace is killed with it. The parent of
# its shell is process 1 in a container only: there `-1` is everybody inside, elsewhere it would be the whole machine.
WAITING = """\
leave() {
    trap '' TERM
    [ "$PPID" = 1 ] && [ -e /.dockerenv ] && kill -TERM -1 2>/dev/null
    while set -- /proc/[0-9]*; [ $# -gt 2 ] && [ "$PPID" = 1 ]; do sleep 0.1 || sleep 1; done 2>/dev/null
    exit 0
}
trap leave TERM
while sleep 86400 & wait $!; do :; done
"""
WAIT_COMMAND = ("/bin/sh", "-c", WAITING)


class SshKeyMode(StrEnum):
    """Who may come in by SSH with a key of the VPS itself."""

    UPLOAD = "upload"  # the key that was sent along
    GENERATE = "generate"  # a key made for it, of which the creator is shown the private half once
    NONE = "none"  # no key of its own: keys of accounts only
    DISABLED = "disabled"  # nobody comes in by SSH


def check_backend(text: str) -> None:
    """Raise ValueError for what cannot be had."""
    if text != "docker":
        raise ValueError(f"only `docker` can be had so far, not {text[:40]!r}")


@dataclass(frozen=True, kw_only=True)  # without slots, so that it can stand beside another base
class VpsWish:
    """What a person asks of a VPS, and not of a task."""

    ssh_key_mode: SshKeyMode = declare(
        "Which key of its own lets in by SSH: an uploaded one, a generated one, none; or no SSH at all.",
        default=SshKeyMode.NONE,
    )
    ssh_public_key: str | None = declare(
        "The public key for `upload`, as it stands in its file.",
        default=None,
        bounds=Bounds(length=MOST_CHARACTERS, check=check_public_key),
    )
    vps_backend: str = declare(
        "What it is made of; only docker so far.",
        default="docker",
        bounds=Bounds(length=16, check=check_backend, shape="docker"),
    )
    lease_seconds: int | None = declare(
        "Stop it after so long, such as 12h, unless it is extended; without it never.",
        default=None,
        bounds=Bounds(least=60, most=MOST_SECONDS),
    )
    idle_stop_seconds: int | None = declare(
        "Stop it when for so long nobody was in it and nothing worked in it; without it never.",
        default=None,
        bounds=Bounds(least=60, most=MOST_SECONDS),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitVps(WorkloadSpec, VpsWish, Submission):
    """A new VPS."""

    name: str | None = declare(
        "A name, good wherever its id is; no two of one owner are called alike.",
        default=None,
        bounds=Bounds(length=63, shortest=1, pattern=VPS_NAME),
    )
    target: str | None = declare("Where to run, HOST[:NUMA][::GPU,GPU].", default=None, bounds=TARGET, flag="t")

    def __post_init__(self) -> None:
        WorkloadSpec.__post_init__(self)
        self.check_secrets(self.env_vars)
        if (self.ssh_key_mode is SshKeyMode.UPLOAD) != (self.ssh_public_key is not None):
            raise ValueError("ssh_public_key: it goes with the key mode `upload`, and with no other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vps(Task, VpsWish):
    """A VPS as the host keeps it and tells of it.

    `home` is the node that has its files: once it has run there, it runs nowhere else. `restore` is the snapshot that
    it is made from next (None: it goes on as it stopped), `again` that it is to start as soon as it has stopped.
    `idle_seconds` and `notice` are worked out when asked for and never stored.
    """

    task_type: str = VPS_TYPE
    home: str | None = None
    restore: int | None = declare("The snapshot that it is made from next.", default=None)
    again: bool = False
    expires_at: str | None = declare("When its lease ends.", default=None)
    idle_seconds: float | None = declare("For how long nothing has happened in it.", default=None)
    notice: str | None = declare("What its user should know: why it will be stopped, and when.", default=None)

    @property
    def place_wanted(self) -> str | None:
        """The target that was asked for, unless that would lead away from its files."""
        if self.home is None or (self.target is not None and self.target.partition(":")[0] == self.home):
            return self.target
        return self.home


def vps_wish(asked: VpsWish) -> dict[str, object]:
    """What was asked beyond a task, by name, for building a wider record from it."""
    return {name: getattr(asked, name) for name in VpsWish.__dataclass_fields__}


TIMESTAMP = Bounds(least=1, most=MAX_INTEGER)


class SnapshotState(StrEnum):
    """How far a snapshot has come."""

    TAKING = "taking"
    READY = "ready"
    FAILED = "failed"  # told for a while, so that whoever asked for it learns why


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved VPS on its node; `timestamp` (UTC unix seconds) is its name.

    `size_bytes` is what it holds beyond what it was made from, `total_bytes` all that it shows.
    """

    task_id: Snowflake
    timestamp: int = declare("When it was taken, which is its name.", bounds=TIMESTAMP)
    state: SnapshotState = SnapshotState.READY
    message: str = declare("What somebody wrote to it.", default="", bounds=Bounds(length=500))
    automatic: bool = False
    size_bytes: int = 0
    total_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    task_id: Snowflake = declare("The VPS.")
    message: str = declare("What to remember it by.", default="", bounds=Bounds(length=500, pattern=NO_CONTROL))


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotId:
    task_id: Snowflake = declare("The VPS.")
    timestamp: int = declare("The snapshot.", bounds=TIMESTAMP)
