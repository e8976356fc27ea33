"""What a runner's report means for the tasks that the host has on that node: pure.

The report is complete: what it does not name is not there. Each attempt stands for itself; what belongs to an older
one is fenced off, never believed. A later one than the row knows is the truth if the node can prove that it was given
it: then the rows are older than that, from a database that was restored. Of what no row knows nothing is removed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kohakuriver.host.services import workspace
from kohakuriver.host.services.workspace import CLEARED
from kohakuriver.host.store.tasks import Change, Live
from kohakuriver.model.lifecycle import ADOPTABLE, FINAL, ON_NODE, Desired, Event, Status
from kohakuriver.model.report import AttemptRef, Report, State, WorkloadState
from kohakuriver.model.task import RetryOn, Task
from kohakuriver.model.units import rfc3339, show_seconds
from kohakuriver.model.vps import Vps

GONE, NEVER_CAME = "its runner no longer knows it", "it never reached its runner"
STANDING = {State.RUNNING: Status.RUNNING, State.PAUSED: Status.PAUSED}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a reported task really stands when the node has no live row of it."""

    attempt: int
    status: Status
    node: str | None


@dataclass(slots=True)
class Verdict:
    """What to do after a report: `news` to judge task by task, `gone` to give up, the rest to answer with.

    What `never_came` certainly did not run; of what is `gone` nobody knows. `later` attempts than those of the rows are
    to be adopted; `unknown` ones are nobody's, as far as the rows tell.
    """

    news: list[WorkloadState] = field(default_factory=list)
    later: list[WorkloadState] = field(default_factory=list)
    gone: list[Live] = field(default_factory=list)
    never_came: list[Live] = field(default_factory=list)
    ended: list[AttemptRef] = field(default_factory=list)
    fenced: list[AttemptRef] = field(default_factory=list)
    unknown: list[WorkloadState] = field(default_factory=list)


def reconcile(
    rows: Sequence[Live],
    report: Report,
    elsewhere: Mapping[int, Elsewhere],
    awaited: Callable[[Live], bool],
    proven: Callable[[WorkloadState], bool],
) -> Verdict:
    """Compare one node's rows with its report.

    `awaited` says of a row never reported yet that it may still be, `proven` that an attempt was given to the node.
    """
    verdict = Verdict()
    by_id = {row.task_id: row for row in rows}
    reported = set()
    for state in report.workloads:
        row = by_id.get(state.task_id)
        if row is not None and row.attempt == state.attempt:
            reported.add(state.task_id)
            is_alive = state.state is State.PREPARING and row.status is Status.LOST
            if is_alive or STANDING.get(state.state, row.status) is not row.status or state.state is State.ENDED:
                verdict.news.append(state)
        else:
            _settle_stray(state, elsewhere.get(state.task_id), proven, verdict)
            if row is not None and row.attempt < state.attempt and (state.claim is None or state in verdict.later):
                reported.add(state.task_id)  # what the row tells is of the past
    for row in rows:
        if row.task_id in reported:
            continue
        if row.store is not None and row.store == report.store and not awaited(row):
            verdict.never_came.append(row)
        elif _absence_matters(row, awaited):
            verdict.gone.append(row)
    return verdict


def _absence_matters(row: Live, awaited: Callable[[Live], bool]) -> bool:
    if row.status is Status.LOST and row.desired not in (Desired.KILL, Desired.STOP):
        return False
    return row.status in (Status.RUNNING, Status.PAUSED) or not awaited(row)


def _settle_stray(
    state: WorkloadState, place: Elsewhere | None, proven: Callable[[WorkloadState], bool], verdict: Verdict
) -> None:
    attempt = AttemptRef(state.task_id, state.attempt)
    if place is None:
        verdict.unknown.append(state)
    elif state.attempt > place.attempt:
        (verdict.later if place.status in ADOPTABLE and proven(state) else verdict.unknown).append(state)
    elif state.state is State.ENDED:
        verdict.ended.append(attempt)
    elif state.attempt < place.attempt or place.status in FINAL or place.status is Status.PENDING:
        verdict.fenced.append(attempt)
    else:
        verdict.unknown.append(state)  # the same number on two nodes, as only a restored database can give it


def adopted(task: Task, state: WorkloadState, hostname: str) -> Change:
    """The event by which a task comes to stand with a later attempt; what that does now, `judge` says."""
    assert state.claim is not None
    values: dict[str, object] = {
        "attempt": state.attempt,
        "assigned_node": hostname,
        "assigned_store": None,
        "assigned_gpus": state.claim.gpus,
        "assigned_numa": state.claim.numa_node,
    }
    if isinstance(task, Vps):
        values["home"] = hostname
    return Change(Event.ADOPTED, values, "its node has a later attempt than the host's database")


def judge(task: Task, state: WorkloadState, now: float) -> list[Change]:
    """The events by which a task comes to stand where its runner says; none when it does already, or is over."""
    if task.status not in ON_NODE and task.status is not Status.LOST:
        return []
    if state.state is State.ENDED:
        return workspace.after_end(task, _judge_end(task, state, now))
    changes = []
    known = workspace.facts_of_start(task, now) if state.state is not State.PREPARING else {}
    if task.status is Status.ASSIGNING and state.state is not State.PREPARING:
        facts = {"started_at": _time(state.started_at, now), "image_digest": state.image_digest}
        changes.append(Change(Event.STARTED, facts | known))
    elif task.status is Status.LOST:
        found = Event.FOUND_STARTING if state.state is State.PREPARING else Event.FOUND_ALIVE
        changes.append(Change(found, {"completed_at": None, "error_message": None, **known}))
    if state.state is State.PAUSED and task.status is not Status.PAUSED:
        changes.append(Change(Event.PAUSED))
    if state.state is State.RUNNING and task.status is Status.PAUSED:
        changes.append(Change(Event.RESUMED))
    return changes


def judge_gone(task: Task, now: float, why: str) -> Change | None:
    """What becomes of a task whose node no longer has it, or no longer speaks; None when nothing new does."""
    if task.desired in (Desired.KILL, Desired.STOP) and why == GONE:
        return judge_absent(task, now, why)
    if task.may_retry(RetryOn.LOSS):
        return retried(task, why)
    if task.status is Status.LOST:
        return None
    return Change(Event.NODE_LOST, {"error_message": why, "completed_at": rfc3339(now)}, why)


def judge_never_came(task: Task, now: float) -> Change:
    """What becomes of a task that certainly did not run where it was to: it waits again, as if it had not been placed."""
    if task.desired in (Desired.KILL, Desired.STOP):
        return judge_absent(task, now, NEVER_CAME)
    return judge_refusal(task, NEVER_CAME, retry_elsewhere=True, now=now)


def judge_absent(task: Task, now: float, why: str) -> Change:
    """What becomes of a task that is to end, and that its runner does not have."""
    if isinstance(task, Vps):
        return workspace.stopped(task, {"completed_at": rfc3339(now)}, why)
    return Change(Event.KILLED, {"completed_at": rfc3339(now)}, why)


def retried(task: Task, why: str) -> Change:
    """Back into the queue for another attempt; the attempt before is fenced off by its number."""
    return Change(Event.RETRIED, CLEARED, f"attempt {task.attempt} ended: {why}")


def _judge_end(task: Task, state: WorkloadState, now: float) -> Change:
    if state.refused and task.status in (Status.ASSIGNING, Status.LOST):
        return judge_refusal(task, state.message or "the runner refused", state.retry_elsewhere, now)
    values = {
        "exit_code": state.exit_code,
        "signal": state.signal,
        "started_at": _time(state.started_at, now) if state.started_at else task.started_at,
        "completed_at": _time(state.ended_at, now),
        "error_message": state.message,
        "image_digest": state.image_digest or task.image_digest,
        "stdout_bytes": state.stdout_bytes,
        "stderr_bytes": state.stderr_bytes,
    }
    if isinstance(task, Vps):
        return workspace.stopped(task, values, state.message)
    event = _end_event(state)
    if event in (Event.EXITED_BAD, Event.OOM_KILLED) and task.may_retry(RetryOn.FAILURE):
        return retried(task, state.message or ("out of memory" if state.oom_killed else f"exit code {state.exit_code}"))
    if state.timed_out and not state.message:
        values["error_message"] = f"its time limit of {show_seconds(task.time_limit_seconds)} was reached"
    return Change(event, values, state.message)


def judge_refusal(task: Task, why: str, retry_elsewhere: bool, now: float) -> Change:
    """What becomes of a task that its runner would not start."""
    if isinstance(task, Vps) and task.home and (task.desired is Desired.KILL or not retry_elsewhere):
        return workspace.stopped(task, {"completed_at": rfc3339(now), "error_message": why}, why)
    if task.desired is Desired.KILL:
        return Change(Event.KILLED, {"completed_at": rfc3339(now)}, why)
    if retry_elsewhere:
        return Change(Event.RETURNED, CLEARED | {"tries": task.tries - 1}, why)
    return Change(Event.REFUSED, {"error_message": why, "completed_at": rfc3339(now)}, why)


def _end_event(state: WorkloadState) -> Event:
    if state.oom_killed:
        return Event.OOM_KILLED
    if state.killed and not state.timed_out:
        return Event.KILLED
    return Event.EXITED_OK if state.exit_code == 0 and not state.timed_out else Event.EXITED_BAD


def _time(seconds: float | None, now: float) -> str:
    return rfc3339(now if seconds is None else seconds)
