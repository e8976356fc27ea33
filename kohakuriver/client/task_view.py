"""How tasks are shown to a person."""

import re
from collections.abc import Iterator, Sequence

from kohakuriver.client.output import Column, Screen, Style, Table, ago, command_text, field_lines, lasted
from kohakuriver.model.lifecycle import FINAL, Desired, Status
from kohakuriver.model.task import HistoryEntry, Task
from kohakuriver.model.units import show_bytes, show_seconds

S = Status
NEXT_NODE = re.compile(r";\s*(?=[A-Za-z0-9_.-]+: )")
STYLES = {
    S.PENDING_APPROVAL: Style.WARN,
    S.REJECTED: Style.BAD,
    S.PENDING: Style.WARN,
    S.ASSIGNING: Style.BUSY,
    S.RUNNING: Style.BUSY,
    S.PAUSED: Style.WARN,
    S.COMPLETED: Style.GOOD,
    S.FAILED: Style.BAD,
    S.KILLED: Style.FAINT,
    S.KILLED_OOM: Style.BAD,
    S.LOST: Style.BAD,
    S.STOPPED: Style.FAINT,
}
WISHES = {Desired.KILL: "killing", Desired.PAUSE: "pausing", Desired.STOP: "stopping"}


def style_of(task: Task) -> Style:
    return STYLES[task.status]


def wish(task: Task) -> str:
    """What is asked of a task and not true yet, in a word; empty when nothing is."""
    if task.status is S.STOPPED and task.desired is Desired.KILL:
        return "deleting"
    if task.status in FINAL or (task.status is S.PAUSED and task.desired is Desired.PAUSE):
        return ""
    return WISHES.get(task.desired, "resuming" if task.status is S.PAUSED else "")


def status_word(task: Task) -> str:
    """The status, with how it ended or what is about to change it."""
    if task.status is S.FAILED and task.signal is not None:
        return f"failed (signal {task.signal})"
    if task.status is S.FAILED and task.exit_code is not None:
        return f"failed ({task.exit_code})"
    about_to = wish(task)
    return f"{task.status} ({about_to})" if about_to else str(task.status)


def asked_gpus(task: Task) -> str:
    wanted = task.required_gpus
    return ",".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)


def what(task: Task) -> str:
    """Its name, where it has one, and its command line."""
    line = command_text(task.command, task.arguments)
    return f"{task.name}: {line}" if task.name else line


def task_table(screen: Screen, now: float) -> Table[Task]:
    columns: list[Column[Task]] = [
        Column("TASK", lambda t: str(t.task_id)),
        Column("STATUS", status_word, style=style_of, least=10),
        Column("NODE", lambda t: t.assigned_node or "-", least=5, leaves=3),
        Column("OWNER", lambda t: t.owner, least=5, leaves=9),
        Column("CORES", lambda t: str(t.required_cores), right=True, leaves=6),
        Column("GPUS", asked_gpus, right=True, leaves=7),
        Column("MEMORY", lambda t: show_bytes(t.required_memory_bytes), right=True, leaves=8),
        Column("AGE", lambda t: ago(t.submitted_at, now), right=True, leaves=2),
        Column("TOOK", lambda t: lasted(t.started_at, t.completed_at, now), right=True, leaves=5),
        Column("COMMAND", what, least=24, leaves=1),
    ]
    return Table(columns, screen)


def task_lines(screen: Screen, tasks: Sequence[Task], now: float) -> Iterator[str]:
    return task_table(screen, now).lines(tasks)


def task_detail(screen: Screen, task: Task, now: float) -> Iterator[str]:
    """Everything about one task, a line for each thing that there is."""
    return field_lines(
        screen,
        [
            ("task", f"{task.task_id}  {task.name or ''}".rstrip()),
            ("status", _status_sentence(task, now)),
            ("why", reasons(task)),
            ("error", task.error_message or ""),
            ("command", command_text(task.command, task.arguments)),
            ("in", place_text(task)),
            ("node", node_text(task)),
            ("asks for", wants(task)),
            ("limits", _limits(task)),
            ("variables", [f"{name}={value}" for name, value in task.env_vars.items()]),
            ("secrets", [f"{name}=@…" for name in task.secret_names]),
            ("mounts", task.additional_mounts),
            ("attempts", f"{task.tries} of {task.max_attempts}" if task.max_attempts > 1 else ""),
            ("owner", task.owner),
            ("approval", _approval(task)),
            ("submitted", moment(task.submitted_at, now)),
            ("started", moment(task.started_at, now)),
            ("ended", moment(task.completed_at, now)),
            ("output", f"{show_bytes(task.stdout_bytes)} on stdout, {show_bytes(task.stderr_bytes)} on stderr"),
        ],
    )


def reasons(task: Task) -> list[str]:
    """Why it waits, a line for each node; what somebody wrote about one stays whole."""
    return [part.strip() for line in (task.reason or "").splitlines() for part in NEXT_NODE.split(line)]


def _status_sentence(task: Task, now: float) -> str:
    if task.started_at and task.status not in (S.PENDING, S.ASSIGNING):
        return f"{status_word(task)}, {'after' if task.completed_at else 'for'} {_took(task, now)}"
    return f"{status_word(task)}, for {ago(task.submitted_at, now)}" if task.status not in FINAL else status_word(task)


def _took(task: Task, now: float) -> str:
    return lasted(task.started_at, task.completed_at, now)


def place_text(task: Task) -> str:
    """What it runs in."""
    where = task.container_name or task.registry_image or ""
    parts = [f"image {where}" if task.registry_image else f"environment {where}" if where else ""]
    parts += [f"directory {task.working_dir}" if task.working_dir else "", "privileged" if task.privileged else ""]
    return ", ".join(filter(None, parts))


def node_text(task: Task) -> str:
    """Where it is, and what it was given there."""
    parts = [f"{task.assigned_node or '-'}"]
    parts += [f"NUMA node {task.assigned_numa}"] if task.assigned_numa is not None else []
    parts += [f"GPUs {','.join(map(str, task.assigned_gpus))}"] if task.assigned_gpus else []
    parts += [f"asked: {task.target}"] if task.target and task.target != task.assigned_node else []
    return ", ".join(parts) if len(parts) > 1 or task.assigned_node else ""


def wants(task: Task) -> str:
    """What it asks of its node."""
    wanted = task.required_gpus
    gpus = f"GPUs {asked_gpus(task)}" if isinstance(wanted, list) else counted(wanted, "GPU") if wanted else ""
    memory = f"{show_bytes(task.required_memory_bytes)} of memory" if task.required_memory_bytes else ""
    return ", ".join(filter(None, [counted(task.required_cores, "core"), memory, gpus]))


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _limits(task: Task) -> str:
    limit = f"{show_seconds(task.time_limit_seconds)} of time" if task.time_limit_seconds else ""
    return ", ".join(filter(None, [limit, f"priority {task.priority}" if task.priority else ""]))


def _approval(task: Task) -> str:
    parts = [task.approval_status or "", f"by {task.approved_by}" if task.approved_by else "", task.approved_at or ""]
    return ", ".join(filter(None, [" ".join(filter(None, parts)), task.rejection_reason or ""]))


def moment(at: str | None, now: float) -> str:
    """A time, and how long ago that was; empty when there is none."""
    return f"{at} ({ago(at, now)} ago)" if at else ""


def history_lines(screen: Screen, entries: Sequence[HistoryEntry]) -> Iterator[str]:
    columns: list[Column[HistoryEntry]] = [
        Column("WHEN", lambda e: e.at),
        Column("WHAT", lambda e: str(e.event or ("asked" if e.detail else "submitted"))),
        Column("STATUS", lambda e: str(e.status), style=lambda e: STYLES[e.status]),
        Column("ATTEMPT", lambda e: str(e.attempt or "-"), right=True, leaves=3),
        Column("NODE", lambda e: e.node or "-", least=5, leaves=2),
        Column("BY", lambda e: e.by or "-", least=5, leaves=4),
        Column("DETAIL", lambda e: e.detail or "", least=16, leaves=1),
    ]
    return Table(columns, screen).lines(entries)
