"""One attempt as its runner holds it in memory, and the words for how it stands and how it ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.report import Claim, State, WorkloadState
from kohakuriver.model.runner_api import Execute
from kohakuriver.model.units import show_bytes, show_seconds
from kohakuriver.system.engine import Observed, Phase, WorkloadKey
from kohakuriver.system.loops import Wake

MAX_MESSAGE_CHARACTERS = 1000
CLOCK_GRAIN_SECONDS = 0.1  # engines tell times from clocks as coarse as this
STANDING = {Phase.RUNNING: State.RUNNING, Phase.PAUSED: State.PAUSED}


class Why(StrEnum):
    """Who wants an attempt to end."""

    ASKED = "asked"
    STOP = "stop"  # of a VPS, of which everything is kept
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOrder:
    """That an attempt must end: SIGTERM, and SIGKILL when the grace is over; `asked_at` in UTC unix seconds.

    `spare` is a snapshot that does not go for the one that is taken then.
    """

    why: Why
    asked_at: float
    grace_seconds: float
    spare: int | None = None


class Unwanted(Exception):
    """Nobody wants the attempt any more, and it has not started."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was promised to the host: the request, and where its output goes."""

    request: Execute
    log_directory: Path
    log_limit_bytes: int

    @property
    def key(self) -> WorkloadKey:
        return WorkloadKey(self.request.task_id, self.request.attempt)


@dataclass(slots=True)
class Held:
    """An attempt that this runner answers for.

    `known_before` stands when the engine may know it already, `may_have_run` when its start was at least begun.
    `departed`: nothing of it is left in the engine. `acknowledged`: the host has its end. `fenced`: nobody wants it
    or its end. `stands_still`: it is frozen for a moment, while it is saved. Once it is departed and either of the others, it is forgotten.
    """

    accepted: Accepted
    state: WorkloadState
    order: KillOrder | None = None
    known_before: bool = False
    may_have_run: bool = False
    departed: bool = False
    acknowledged: bool = False
    fenced: bool = False
    stands_still: bool = False
    predecessor: "Held | None" = None
    wake: Wake = field(default_factory=Wake)
    gone: Wake = field(default_factory=Wake)
    _looks_begun: int = 0
    _look_taken: int = 0
    _patience: asyncio.Timeout | None = None

    @property
    def key(self) -> WorkloadKey:
        return self.accepted.key

    @property
    def unwanted(self) -> bool:
        return self.order is not None or self.fenced

    @property
    def over(self) -> bool:
        return self.state.state is State.ENDED

    def begin_look(self) -> int:
        """A ticket for a look at the engine that begins now."""
        self._looks_begun += 1
        return self._looks_begun

    def take(self, seen: Observed, ticket: int) -> bool:
        """Have the state say what was seen of an attempt that stands; whether that was news.

        A look that began before one that was taken already tells of the past.
        """
        if ticket < self._look_taken:
            return False
        self._look_taken = ticket
        if self.stands_still and seen.phase is Phase.PAUSED and self.state.state is State.RUNNING:
            return False  # for a snapshot, which nobody but us needs to know
        self.may_have_run |= seen.phase is not Phase.CREATED
        if self.over or seen.phase not in STANDING:
            return False
        before, self.state = self.state, standing(self.state, seen)
        return before != self.state

    def ring(self) -> None:
        """Have its life look again, and stop waiting for what is no longer wanted."""
        self.wake.set()
        if self.unwanted and self._patience is not None and not self._patience.expired():
            self._patience.reschedule(0.0)

    @asynccontextmanager
    async def patience(self, seconds: float | None, waits_for: str) -> AsyncIterator[None]:
        """Wait inside for at most so long; raises Unwanted as soon as it is, EngineFailed when the time is over."""
        if self.unwanted:
            raise Unwanted
        try:
            async with asyncio.timeout(seconds) as self._patience:
                yield
        except TimeoutError:
            if self.unwanted:
                raise Unwanted from None
            raise EngineFailed(f"{waits_for} took longer than {seconds or 0:g} s", retry_elsewhere=True) from None
        finally:
            self._patience = None


def stricter(before: KillOrder | None, why: Why, grace_seconds: float, now: float) -> KillOrder | None:
    """The order that comes of one more; None when what was ordered before is as strict already."""
    if before is None:
        return KillOrder(why=why, asked_at=now, grace_seconds=grace_seconds)
    if before.why is Why.STOP and why is Why.ASKED:
        return replace(before, why=why, grace_seconds=min(before.grace_seconds, grace_seconds))
    if before.grace_seconds <= grace_seconds:
        return None
    return replace(before, grace_seconds=grace_seconds)


def claim_of(request: Execute) -> Claim:
    """What the order said of an attempt, for a host that does not remember."""
    return Claim(
        owner=request.owner,
        name=request.spec.name or "",
        is_vps=request.vps is not None,
        gpus=request.gpus,
        numa_node=request.numa_node,
        proof=request.proof,
    )


def preparing(request: Execute) -> WorkloadState:
    """An attempt just accepted."""
    return WorkloadState(task_id=request.task_id, attempt=request.attempt, state=State.PREPARING)


def standing(state: WorkloadState, seen: Observed) -> WorkloadState:
    """The state of an attempt that was seen running or paused."""
    at = seen.started_at or state.started_at
    return replace(state, state=STANDING[seen.phase], started_at=at, message=None)


def refused(state: WorkloadState, why: Exception, now: float) -> WorkloadState:
    """It was never started."""
    elsewhere = isinstance(why, EngineFailed) and why.retry_elsewhere
    return _ended(state, now, refused=True, retry_elsewhere=elsewhere, message=one_line(str(why)))


def killed_before_start(state: WorkloadState, now: float) -> WorkloadState:
    """It was asked to end before it began."""
    return _ended(state, now, killed=True, message="killed before it started")


def vanished(held: Held, now: float) -> WorkloadState:
    """The engine no longer knows an attempt that ran; nobody can say how it ended."""
    killed = held.order is not None and held.order.why is Why.ASKED
    return _ended(held.state, now, killed=killed, message="its container vanished; how it ended is not known")


def exited(held: Held, seen: Observed, pressed: bool, now: float) -> WorkloadState:
    """How an attempt ended that the engine saw exit; `pressed` says that a signal was sent to end it."""
    assert seen.exit is not None
    why = held.order.why if held.order and (pressed or _ordered_before(held.order, seen)) else None
    return _ended(
        held.state,
        seen.finished_at or now,
        started_at=seen.started_at or held.state.started_at,
        exit_code=seen.exit.code,
        signal=seen.exit.signal,
        oom_killed=seen.exit.oom_killed,
        killed=why is Why.ASKED,
        timed_out=why is Why.TIME_LIMIT,
        message=_explain(held, seen, why),
    )


def with_note(state: WorkloadState, note: str) -> WorkloadState:
    """The state with one more sentence in its message."""
    return replace(state, message=one_line("; ".join(filter(None, (state.message, note)))) or None)


def one_line(text: str) -> str:
    """A message as it travels: one line, bounded, always valid text."""
    return " ".join(text.replace("\0", " ").encode(errors="replace").decode().split())[:MAX_MESSAGE_CHARACTERS]


def _ended(state: WorkloadState, at: float, **how: object) -> WorkloadState:
    return replace(state, state=State.ENDED, ended_at=at, **how)  # type: ignore[arg-type]


def _ordered_before(order: KillOrder, seen: Observed) -> bool:
    return seen.finished_at is None or seen.finished_at >= order.asked_at - CLOCK_GRAIN_SECONDS


def _explain(held: Held, seen: Observed, why: Why | None) -> str | None:
    spec = held.accepted.request.spec
    if seen.exit and seen.exit.oom_killed:
        limit = f" (its limit is {show_bytes(spec.required_memory_bytes)})" if spec.required_memory_bytes else ""
        return f"out of memory{limit}"
    if why is Why.TIME_LIMIT:
        return f"it ran longer than its time limit of {show_seconds(spec.time_limit_seconds)}"
    if seen.exit and seen.exit.code is None:
        return "its exit code is lost: its first process was killed, and so was Docker"
    return None
