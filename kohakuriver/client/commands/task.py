"""`kohakuriver task …`: every command about tasks."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from kohakuriver.client.command import Command, Flag, Order, shown, shown_now
from kohakuriver.client.flags import Spelling, at_most
from kohakuriver.client.output import Screen
from kohakuriver.client.paging import ALL, list_pages
from kohakuriver.client.registry_login import LOGIN
from kohakuriver.client.secret_variables import ENV, UNTYPED
from kohakuriver.client.submission import submission_of
from kohakuriver.client.task_view import history_lines, status_word, task_detail, task_lines, task_table
from kohakuriver.client.waiting import first_failure, has_ended, wait_for
from kohakuriver.client.watching import INTERVAL, Picture, watch
from kohakuriver.model import host_api as api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.task import Task, TaskSpec

SHELL = "/bin/sh"
MEMBERS = {member.name: member for member in dataclasses.fields(TaskSpec)}
ONE = {"task_id": Spelling(about="The task's id.", metavar="TASK", complete="task")}
OWNED = {
    "status": Spelling(flag="s"),
    "node": Spelling(flag="n", complete="node"),
    "before": Spelling(about="Only tasks older than this one.", metavar="TASK", complete="task"),
    "limit": Spelling(flag="l"),
}


def submit(order: Order) -> int:
    """Queue it, print the ids at once, and with --wait end as the tasks end."""
    plain = order.session.ask(api.TASK_SUBMIT, order.request(command_line(order) | submission_of(order)))
    submitted = order.session.understand(api.TASK_SUBMIT, plain)
    order.answer(plain, lambda: order.screen.lines(map(str, submitted.task_ids)))
    order.screen.out.flush()
    if order.has("wait"):
        return first_failure(_waited_for(order, submitted.task_ids)[0])
    order.notes.hint(f"queued; see its output with: kohakuriver task logs -f {submitted.task_ids[0]}")
    return 0


def command_line(order: Order) -> dict[str, Any]:
    """The program and its arguments, exactly as typed; a shell only where --shell asks for one."""
    words: list[str] = order.parsed.words
    if words[:1] == ["--"]:
        words = words[1:]
    text: str | None = order.parsed.shell
    if text is not None:
        # The first word after TEXT is $0 of the shell, so that the words given are $1, $2 …
        return {"command": SHELL, "arguments": ["-c", text, *(["sh", *words] if words else [])]}
    if not words:
        raise BadRequest("no command given: kohakuriver task submit [OPTIONS] -- COMMAND [ARGUMENT…]")
    return {"command": words[0], "arguments": words[1:]}


def retries(text: str) -> int:
    """How many tries in all come of so many more."""
    most = at_most(MEMBERS["max_attempts"]) - 1
    if not text.isdecimal() or int(text) > most:
        raise ValueError(f"{text[:40]!r} is not between 0 and {most}")
    return int(text) + 1


def list_tasks(order: Order) -> int:
    """Print one page, or with --all every page."""
    return list_pages(order, task_table(order.screen, order.clock.now()))


def wait(order: Order) -> int:
    """Return when all have ended, with the exit code of the first that did not end well."""
    requests = [order.request({"task_id": word}) for word in order.values()["task_id"]]
    tasks, plain = _waited_for(order, list(dict.fromkeys(request.task_id for request in requests)))
    if order.as_json:
        order.screen.json(plain if len(plain) > 1 else plain[0])
    return first_failure(tasks)


def _waited_for(order: Order, task_ids: Sequence[Snowflake]) -> tuple[list[Task], list[Any]]:
    try:
        return wait_for(order, task_ids)
    except KeyboardInterrupt:
        order.notes.hint(f"nobody waits any more, but it goes on; to end it: kohakuriver task kill {task_ids[0]}")
        raise


def watch_tasks(order: Order) -> int:
    """Show tasks again and again; the ones named, until they have ended, or the newest."""
    wanted = [_id(word) for word in order.parsed.words]

    def look() -> Picture:
        if wanted:
            plain = [order.session.ask(api.TASK_SHOW, api.TaskId(task_id=task_id)) for task_id in wanted]
        else:
            plain = order.session.ask(api.TASK_LIST, order.request(order.values()))
        tasks = order.session.understand(api.TASK_LIST, plain)
        done = wanted and all(map(has_ended, tasks))
        return Picture(plain, lambda screen: list(_lines(screen, tasks, order)), first_failure(tasks) if done else None)

    return watch(order, look)


def logs(order: Order) -> int:
    """Print what a task wrote."""
    from kohakuriver.client.logs import show_logs  # help must not wait for the network's modules

    return show_logs(order)


def _id(word: str) -> Any:
    if not word.isdecimal():
        raise BadRequest(f"{word[:40]!r} is not an id (ids are digits; `kohakuriver task list` shows them)")
    return int(word)


def _lines(screen: Screen, tasks: Sequence[Task], order: Order) -> Iterator[str]:
    return task_lines(screen, tasks, order.clock.now())


def show_change(order: Order, task: Task) -> Iterator[str]:
    """What became, or is about to become, of a task that was told something."""
    yield f"{task.task_id}  {status_word(task)}"


SUBMIT_EXAMPLES = """\
examples:
  kohakuriver task submit -- echo 'hello  world'
  kohakuriver task submit -c 4 -m 8G -g 1 --image python:3.12 -- python train.py --epochs 3
  kohakuriver task submit -t alpha::0,1 -t beta::0,1 --time-limit 12h --retry 2 -- ./train
  kohakuriver task submit --shell 'grep -c error /shared/*.log | sort'
  kohakuriver task submit --wait -- make test && echo passed

Everything from the first word that is no option (or after --) reaches the program as typed;
no shell looks at it again. Standard output holds the ids of the new tasks, one a line.

GPUs: -g 2 takes any two; -g 0,1 takes those two; -g @0 takes that one.

Secrets: -e KEY=@FILE is what FILE holds (@- standard input), -e KEY=@secret your own variable KEY; only the
task sees it, everybody else its name. A value that begins with @ is typed with @@.
"""
LOGS_MORE = """\
The bytes go to standard output as the program wrote them. With --both, what it wrote to standard
error goes to standard error. -f goes on until the task has ended; when the connection breaks it goes
on where it stopped. With --json there is one document a piece: stream, attempt, offset and text
(base64 for bytes that are not UTF-8).
"""
WAIT_MORE = """\
The exit code is the task's own (128 + the signal that ended it; 1 when it failed without either);
of several tasks, that of the first that did not end well. A lost task counts as ended.
"""
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "submit",
        api.TASK_SUBMIT,
        act=submit,
        about="Queue a command; prints the ids of the new tasks.",
        hidden=frozenset({"command", "arguments"}) | UNTYPED,
        spelled={
            "targets": Spelling("target", metavar="HOST[:NUMA][::GPU,GPU]", complete="node"),
            "required_cores": Spelling(metavar="CORES"),
            "required_memory_bytes": Spelling(),
            "required_gpus": Spelling(metavar="GPUS"),
            "container_name": Spelling("container", metavar="NAME"),
            "registry_image": Spelling("image", metavar="NAME"),
            "env_vars": ENV,
            "name": Spelling(),
            "working_dir": Spelling("workdir", metavar="DIR"),
            "additional_mounts": Spelling("mount", metavar="SOURCE:TARGET[:ro]"),
            "max_attempts": Spelling(
                "retry", about="How often it may be tried again when it fails or is lost.", parse=retries
            ),
            "idempotency_key": Spelling(metavar="KEY"),
            "ip_reservation_token": Spelling("reserve-ip", metavar="TOKEN"),
            "nodes": Spelling(metavar="N"),
            "keep_going": Spelling(),
        },
        extra=(
            Flag(("-w", "--wait"), "Wait until it has ended, and end with its exit code."),
            LOGIN,
            Flag(("--shell",), f"Run TEXT by {SHELL}; words that follow are $1, $2 …", {"metavar": "TEXT"}),
            Flag(("words",), "The program and its arguments.", {"nargs": "...", "metavar": "-- COMMAND [ARGUMENT…]"}),
        ),
        also=(api.TASK_SHOW,),
        more=SUBMIT_EXAMPLES,
    ),
    Command("list", api.TASK_LIST, act=list_tasks, spelled=OWNED, extra=(ALL,)),
    Command("my", api.TASK_MY, act=list_tasks, about="Your tasks, newest first.", spelled=OWNED, extra=(ALL,)),
    Command("status", api.TASK_SHOW, show=shown_now(task_detail), about="All about a task.", many=True, spelled=ONE),
    Command("history", api.TASK_HISTORY, show=shown(history_lines), spelled=ONE),
    Command(
        "logs",
        api.TASK_STDOUT,
        act=logs,
        about="What a task wrote.",
        spelled=ONE | {"lines": Spelling("tail"), "follow": Spelling(flag="f")},
        extra=(
            Flag(("-e", "--stderr"), "What it wrote to standard error, instead of standard output."),
            Flag(("--both",), "Both, each to where the program wrote it."),
        ),
        also=(api.TASK_STDERR, api.TASK_SHOW),
        more=LOGS_MORE,
    ),
    Command(
        "wait", api.TASK_SHOW, act=wait, about="Wait until tasks have ended.", many=True, spelled=ONE, more=WAIT_MORE
    ),
    Command(
        "watch",
        api.TASK_LIST,
        act=watch_tasks,
        about="Tasks, looked at again and again.",
        hidden=frozenset({"before"}),
        spelled=OWNED,
        extra=(
            INTERVAL,
            Flag(("words",), "Only these, until they have ended.", {"nargs": "*", "metavar": "TASK"}, complete="task"),
        ),
        also=(api.TASK_SHOW,),
    ),
    Command("kill", api.TASK_KILL, show=show_change, many=True, spelled=ONE),
    Command("pause", api.TASK_PAUSE, show=show_change, many=True, spelled=ONE),
    Command("resume", api.TASK_RESUME, show=show_change, many=True, spelled=ONE),
    Command("pending", api.TASK_WAITING, act=list_tasks, spelled=OWNED, extra=(ALL,)),
    Command("approve", api.TASK_APPROVE, show=show_change, many=True, spelled=ONE),
    Command("reject", api.TASK_REJECT, show=show_change, many=True, spelled=ONE),
)
