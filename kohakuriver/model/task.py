"""A task: what a person asked for, and what became of it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kohakuriver.model import fields as f
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.lifecycle import Desired, Event, Status
from kohakuriver.model.units import parse_target

MAX_COMMAND_CHARACTERS = 120_000  # Linux takes 128 KiB in one argument
IMAGE = r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}"
LOGIN = r"[^:\x00-\x1f\x7f]+:[^\x00-\x1f\x7f]+"
WORD = Bounds(length=MAX_COMMAND_CHARACTERS, count=4096)


class RetryOn(StrEnum):
    """What earns a task another attempt."""

    FAILURE = "failure"
    LOSS = "loss"


def _check_environment(variables: dict[str, str], field: str = "env_vars") -> None:
    for name in variables:
        if not re.fullmatch(f.VARIABLE, name):
            raise ValueError(f"{field}: {name[:60]!r} cannot name a variable")


def _check_login(text: str) -> None:
    if not re.fullmatch(LOGIN, text):
        raise ValueError("is not USER:PASSWORD")  # and is not shown, as it may be a password alone


def _check_mount(text: str) -> None:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(f"{text[:60]!r} is not SOURCE:TARGET or SOURCE:TARGET:ro")
    if any(not p.startswith("/") or ".." in p.split("/") for p in parts[:2]):
        raise ValueError(f"{text[:60]!r} must hold two absolute paths without `..`")


def _check_target(text: str) -> None:
    target = parse_target(text)
    if not re.fullmatch(f.HOSTNAME, target.hostname):
        raise ValueError(f"{target.hostname[:60]!r} is not a node name")


TARGET = Bounds(
    length=400, count=256, check=_check_target, shape=rf"{f.HOSTNAME}(:[0-9]{{1,3}})?(::[0-9]{{1,3}}(,[0-9]{{1,3}})*)?"
)
MOUNT = Bounds(length=4096, count=64, check=_check_mount, shape=r"/[^:\x00-\x1f\x7f]*:/[^:\x00-\x1f\x7f]*(:(ro|rw))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What a person asks of a workload, whether it is a task or a VPS."""

    name: str | None = declare(
        "A name to find it by.", default=None, bounds=Bounds(length=128, shortest=1, pattern=f.NO_CONTROL)
    )
    env_vars: dict[str, str] = declare(
        "Variables of its environment, K=V.",
        default={},
        bounds=Bounds(length=MAX_COMMAND_CHARACTERS, count=1000, keys=f.VARIABLE),
        flag="e",
    )
    working_dir: str | None = declare(
        "Directory inside the container.", default=None, bounds=Bounds(length=4096, pattern=r"/[^\x00-\x1f]*")
    )
    required_cores: int = declare(
        "CPU cores; 0 takes none and has no limit.", default=1, bounds=Bounds(least=0, most=4096), flag="c"
    )
    required_gpus: int | list[int] = declare(
        "GPUs: how many, or which by index.",
        default=0,
        bounds=Bounds(least=0, most=1024, count=1024, distinct=True),
        flag="g",
    )
    required_memory_bytes: int | None = declare(
        "Memory limit, such as 8G; without it there is no limit.",
        default=None,
        bounds=Bounds(least=6 * 2**20, most=2**50),
        flag="m",
    )
    container_name: str | None = declare(
        "Environment to run in.", default=None, bounds=Bounds(length=63, pattern=f.ENVIRONMENT)
    )
    registry_image: str | None = declare(
        "Image to run in, instead of an environment.",
        default=None,
        bounds=Bounds(length=255, pattern=IMAGE, not_with="container_name"),
    )
    privileged: bool = declare("Run with all privileges, where the configuration allows it.", default=False)
    additional_mounts: list[str] = declare(
        "Directories of the node to show inside, SOURCE:TARGET[:ro].",
        default=[],
        bounds=MOUNT,
    )
    ip_reservation_token: str | None = declare(
        "A reserved address to take.", default=None, bounds=Bounds(length=1024, pattern=r"[A-Za-z0-9_=.-]*")
    )
    priority: int = declare(
        "Higher goes first; within one priority, submit order.", default=0, bounds=Bounds(least=-100, most=100)
    )

    def __post_init__(self) -> None:
        if sum(len(k) + len(v) for k, v in self.env_vars.items()) > MAX_COMMAND_CHARACTERS:
            raise ValueError(f"env_vars: longer than {MAX_COMMAND_CHARACTERS} characters in all")
        if isinstance(self.required_gpus, list) and len(set(self.required_gpus)) < len(self.required_gpus):
            raise ValueError("required_gpus: a GPU is named twice")
        if self.container_name and self.registry_image:
            raise ValueError("container_name: give an environment or a registry_image, not both")
        _check_environment(self.env_vars)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(WorkloadSpec):
    """What a person asks of a task; it travels whole from the command line to the container."""

    command: str = declare("The program to run.", bounds=Bounds(length=MAX_COMMAND_CHARACTERS, shortest=1))
    arguments: list[str] = declare("Its arguments, exactly as given.", default=[], bounds=WORD)
    max_attempts: int = declare(
        "How often it may be tried when it fails or is lost.", default=1, bounds=Bounds(least=1, most=100)
    )
    retry_on: list[RetryOn] = declare(
        "What earns another attempt: failure, loss.", default=[RetryOn.FAILURE, RetryOn.LOSS], bounds=Bounds(count=2)
    )
    time_limit_seconds: int | None = declare(
        "Kill it when it runs longer, such as 2h.", default=None, bounds=Bounds(least=1, most=10 * 365 * 86400)
    )

    def __post_init__(self) -> None:
        WorkloadSpec.__post_init__(self)  # `super` does not work in a dataclass with slots
        if len(self.command) + sum(map(len, self.arguments)) > MAX_COMMAND_CHARACTERS:
            raise ValueError(f"command: with its arguments longer than {MAX_COMMAND_CHARACTERS} characters")


REGISTRY_LOGIN = Bounds(length=8192, check=_check_login, shape=LOGIN)


@dataclass(frozen=True, kw_only=True)  # without slots, so that it can stand beside another base
class Submission:
    """What goes along with a request for a workload, and is not told of it afterwards."""

    idempotency_key: str | None = declare(
        "The same key again answers with what it made the first time.",
        default=None,
        bounds=Bounds(length=200, shortest=1, pattern=r"[\x21-\x7e]+"),
    )
    registry_login: str | None = declare(
        "USER:PASSWORD for the pull of its image; forgotten when it runs.", default=None, bounds=REGISTRY_LOGIN
    )
    secret_env: dict[str, str] = declare(
        "Variables whose values only it sees, K=V.",
        default={},
        bounds=Bounds(length=MAX_COMMAND_CHARACTERS, count=1000, keys=f.VARIABLE),
    )

    def check_secrets(self, env_vars: dict[str, str]) -> None:
        """Raise ValueError when there are too many, or one stands among the others, too."""
        if sum(len(k) + len(v) for k, v in self.secret_env.items()) > MAX_COMMAND_CHARACTERS:
            raise ValueError(f"secret_env: longer than {MAX_COMMAND_CHARACTERS} characters in all")
        _check_environment(self.secret_env, "secret_env")
        twice = sorted(env_vars.keys() & self.secret_env.keys())
        if twice:
            raise ValueError(f"secret_env: {twice[0][:60]!r} stands in env_vars, too")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitTask(TaskSpec, Submission):
    """One submit: several targets make one task each, all or none."""

    targets: list[str] = declare(
        "Where to run, HOST[:NUMA][::GPU,GPU]; repeat for one task each.", default=[], bounds=TARGET, flag="t"
    )
    nodes: int | None = declare(
        "On how many nodes at once, one task on each; they know each other as rank-0, rank-1 …",
        default=None,
        bounds=Bounds(least=1, most=1000, not_with="targets"),
    )
    keep_going: bool = declare("Let the others go on when one of several nodes fails.", default=False)

    def __post_init__(self) -> None:
        TaskSpec.__post_init__(self)
        self.check_secrets(self.env_vars)
        if self.nodes and self.targets:
            raise ValueError("nodes: give nodes or targets, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(TaskSpec):
    """A task as the host keeps it and tells of it; times are UTC RFC 3339.

    Of secret variables only the names are told. `attempt` counts placements (an older one is fenced off), `tries` those that may have run and so count against
    `max_attempts`. `assigned_ip` is its address in the overlay, `rank` which of `world_size` tasks started together it is. `assigned_store` names the
    records of its node's runner in which it must be if it ever came there, until it is known to have started. `reason` is worked out when asked for and never stored.
    """

    task_id: Snowflake
    task_type: str = "command"
    batch_id: Snowflake
    owner: str
    secret_names: list[str] = declare("Variables whose values only the task sees.", default=[])
    target: str | None = None
    status: Status
    desired: Desired = Desired.RUN
    attempt: int = 0
    tries: int = 0
    assigned_node: str | None = None
    assigned_gpus: list[int] = declare("GPUs given to it, by index.", default=[])
    assigned_numa: int | None = None
    assigned_ip: str | None = None
    assigned_store: str | None = None
    rank: int = 0
    world_size: int = 1
    reason: str | None = declare("Why it waits, one line a node.", default=None, bounds=Bounds(length=10_000_000))
    image_digest: str | None = declare(
        "Which image it runs in: NAME@sha256:… of a registry, or an image's id.",
        default=None,
        bounds=Bounds(length=600),
    )
    exit_code: int | None = None
    signal: int | None = None
    error_message: str | None = None
    submitted_at: str
    started_at: str | None = None
    completed_at: str | None = None
    approval_status: str | None = None
    approved_by: str | None = None
    approved_at: str | None = None
    rejection_reason: str | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0

    @property
    def place_wanted(self) -> str | None:
        """Where it must run, as a target; None when any node will do."""
        return self.target

    def may_retry(self, why: RetryOn) -> bool:
        """Whether the retry policy grants another attempt after this one ended so."""
        return why in self.retry_on and self.tries < self.max_attempts and self.desired is not Desired.KILL


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to a task; `status` is what it became."""

    at: str
    event: Event | None
    status: Status
    attempt: int
    node: str | None = None
    by: str | None = None
    detail: str | None = declare("What else there is to say.", default=None, bounds=Bounds(length=8192))


def spec_values(spec: WorkloadSpec, kind: type[WorkloadSpec] = TaskSpec) -> dict[str, Any]:
    """The members that a spec has of that kind, by name, for building a wider record from it."""
    return {name: getattr(spec, name) for name in kind.__dataclass_fields__}
