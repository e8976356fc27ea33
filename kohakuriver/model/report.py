"""What a runner tells its host, and what the host answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from kohakuriver.model import fields as f
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.node import Machine, Metrics, Sample
from kohakuriver.model.overlay_part import OverlayNews, OverlayPart, OverlayWish

NAME = Bounds(length=64, shortest=1, pattern=f.HOSTNAME)
NOTE = Bounds(length=4096)


def _check_url(text: str) -> None:
    parts = urlsplit(text)  # raises ValueError for brackets that do not match, and so does `port` for what is none
    if not parts.hostname or parts.port == 0:
        raise ValueError(f"{text[:60]!r} names no place")


class State(StrEnum):
    """Where an attempt stands on its node."""

    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the order of an attempt said: told of attempts that the host doubts, and `proof` is the host's own."""

    owner: str = declare("Whose it is.", bounds=Bounds(length=64))
    name: str = declare("What its owner calls it.", default="", bounds=Bounds(length=200))
    is_vps: bool = declare("Whether it is a VPS.", default=False)
    gpus: list[int] = declare("GPUs given to it, by index.", default=[])
    numa_node: int | None = None
    proof: str = declare("What came with the order.", default="", bounds=Bounds(length=100))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadState:
    """One attempt as its runner knows it; `killed` says that it ended because the host asked for that.

    `refused` stands when it never started: the reason, and whether another node might do better.
    Times are UTC unix seconds.
    """

    task_id: Snowflake
    attempt: int
    state: State
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    killed: bool = False
    timed_out: bool = False
    refused: bool = False
    retry_elsewhere: bool = False
    image_digest: str | None = declare("Which image it runs in.", default=None, bounds=Bounds(length=600))
    message: str | None = declare("Why it ended so, or what it waits for.", default=None, bounds=NOTE)
    started_at: float | None = declare("When it started.", default=None, bounds=f.MOMENT)
    ended_at: float | None = declare("When it ended.", default=None, bounds=f.MOMENT)
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    busy: bool | None = declare("Whether something works in it; None where nobody looks.", default=None)
    claim: Claim | None = declare("Whose it is, once the host has doubted it.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All attempts a runner has; complete, so that a lost one heals with the next.

    `instance` is drawn anew at each start of the runner, `sequence` grows by one a report: a late one is ignored.
    """

    instance: str = declare("The runner's life.", bounds=Bounds(length=64))
    sequence: int = declare("Grows with each report.", bounds=Bounds(least=0))
    workloads: list[WorkloadState] = declare("Every attempt it has.", default=[])
    store: str = declare(
        "Which records speak: what they ever took on stands here until its end is acknowledged.",
        default="",
        bounds=Bounds(length=64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A runner introduces itself; `clock` is its UTC unix time."""

    hostname: str = declare("The node's name.", bounds=NAME)
    url: str = declare(
        "Where the host reaches the runner.",
        bounds=Bounds(length=300, pattern=r"https?://[A-Za-z0-9.:\[\]_-]+", check=_check_url),
    )
    tls_fingerprint: str = declare(
        "SHA-256 of the certificate that the runner shows there; empty: plain HTTP.",
        default="",
        bounds=Bounds(length=64, pattern=r"([0-9a-f]{64})?"),
    )
    version: str = declare("The runner's release.", bounds=Bounds(length=64))
    engine: str = declare("Its engine.", bounds=Bounds(length=32))
    engine_version: str = declare("The engine's release.", default="", bounds=Bounds(length=64))
    machine: Machine
    clock: float = declare("The runner's clock.", bounds=f.MOMENT)
    report: Report
    overlay: OverlayWish | None = declare("That it would join the overlay.", default=None)
    warnings: list[str] = declare("What an admin should know.", default=[], bounds=Bounds(length=1000, count=50))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A runner's sign of life."""

    hostname: str = declare("The node's name.", bounds=NAME)
    clock: float = declare("The runner's clock.", bounds=f.MOMENT)
    metrics: Metrics = field(default_factory=Metrics)
    samples: list[Sample] = declare("The seconds since the last heartbeat.", default=[], bounds=Bounds(count=120))
    report: Report
    overlay: OverlayNews | None = declare("How its part of the overlay is.", default=None)
    warnings: list[str] = declare("What an admin should know.", default=[], bounds=Bounds(length=1000, count=50))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A report at once, because something changed."""

    hostname: str = declare("The node's name.", bounds=NAME)
    report: Report


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """One attempt, named."""

    task_id: Snowflake
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What the host made of a report: these ends are stored (forget them), these attempts must go away (fenced).

    `doubted` attempts are not in its rows: it wants to see their claims.
    `overlay` stands when the runner's part of it is another than the runner said it has.
    """

    ended: list[AttemptRef] = field(default_factory=list)
    fenced: list[AttemptRef] = field(default_factory=list)
    doubted: list[AttemptRef] = field(default_factory=list)
    overlay: OverlayPart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The host's welcome: the pace of heartbeats, and what it made of the report."""

    cluster_id: str
    version: str
    heartbeat_interval_seconds: float
    acknowledged: Acknowledged
    overlay: OverlayPart | None = None
