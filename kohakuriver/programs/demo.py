"""`kohakuriver demo`: a real two-node cluster on this machine, shown at work with the commands that people type."""

import asyncio
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kohakuriver.client.complaints import Parser
from kohakuriver.client.session import Session
from kohakuriver.model import host_api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import RiverError
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.listing import ListAll
from kohakuriver.model.route import Route
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import ClientSettings
from kohakuriver.model.task import Task
from kohakuriver.programs.own_command import own_command, own_environment, typed_command
from kohakuriver.programs.serve import start_log
from kohakuriver.programs.signals import until_told_to_stop
from kohakuriver.system.child import Seen, run_child

if TYPE_CHECKING:
    from kohakuriver.programs.dev_cluster import DevCluster

Q = TypeVar("Q")
R = TypeVar("R")
STEP_SECONDS = 20.0
POLL_SECONDS = 0.05
STEPS = 6
STEP_PAUSE_SECONDS = 0.4
PLAIN = {"COLUMNS": "110", "NO_COLOR": "1"}


class NotAsShown(RiverError):
    """A step of the tour did not show what it should."""


@dataclass(frozen=True, slots=True)
class Guide:
    """Says what happens, types the commands, and looks whether they show what they should."""

    program: tuple[str, ...]
    environment: Mapping[str, str]
    host: ClientSettings
    say: Callable[[str], None]

    def tell(self, text: str) -> None:
        """A sentence for the person who watches."""
        self.say(f"\n{text}")

    async def show(self, *words: str, code: int = 0) -> Seen:
        """Type a command and show what it prints; raises NotAsShown when it exits otherwise than it should."""
        self.say(f"  $ kohakuriver {shlex.join(words)}")
        seen = await run_child(
            [*self.program, *words], self.environment, lambda line: self.say(f"    {line}"), STEP_SECONDS
        )
        self.must(seen.code == code, f"`kohakuriver {words[0]} {words[1]}` exits with {code}, not {seen.code}")
        return seen

    async def submit(self, *words: str) -> list[str]:
        """Type a submit; the ids of the new tasks."""
        seen = await self.show("task", "submit", *words)
        self.must(all(line.isdigit() for line in seen.lines) and seen.lines != (), "a submit prints ids, one a line")
        return list(seen.lines)

    async def ask(self, route: Route[Q, R], request: Q) -> R:
        """What the host says to a request that is not shown."""

        def call() -> R:
            with closing(Session(self.host)) as session:
                return session.call(route, request)

        return await asyncio.to_thread(call)

    async def task(self, task_id: str) -> Task:
        """A task as it is now."""
        return await self.ask(host_api.TASK_SHOW, host_api.TaskId(task_id=Snowflake(int(task_id))))

    async def until(self, task_id: str, status: Status) -> None:
        """Wait until a task is in a status; raises NotAsShown when that takes too long."""
        give_up = time.monotonic() + STEP_SECONDS
        while (task := await self.task(task_id)).status is not status:
            self.must(time.monotonic() < give_up, f"task {task_id} becomes {status}, not {task.status}")
            await asyncio.sleep(POLL_SECONDS)

    def must(self, holds: bool, what: str) -> None:
        """Raise NotAsShown unless it holds."""
        if not holds:
            raise NotAsShown(f"the demo went wrong; it should be that {what}")


def run(arguments: list[str]) -> int:
    """Take the tour; 0 when every step showed what it should."""
    parser = Parser("kohakuriver demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--engine", choices=["docker", "process"], help="instead of Docker if there is one")
    asked = parser.parse_args(arguments[1:])
    start_log("ERROR")
    return asyncio.run(until_told_to_stop(lambda: tour(asked.engine)))


async def tour(engine: str | None) -> int:
    """Start a cluster, show it at work, take it away."""
    from kohakuriver.programs.dev_cluster import DevOptions, running_cluster  # only now: it is both programs

    began = time.monotonic()
    say("KohakuRiver: a host and two nodes, started on this machine for a moment.")
    async with running_cluster(DevOptions(engine=engine), say) as cluster:
        guide = Guide(own_command(), own_environment() | cluster.environment | PLAIN, cluster.client, say)
        for step in (the_nodes, a_task, a_live_log, one_that_fails, one_that_is_killed, one_that_waits, the_totals):
            await step(guide, cluster)
        guide.tell("That was the tour. Now the nodes and everything they ran are taken away.")
    say(f"Done in {time.monotonic() - began:.0f} seconds. To play yourself: {typed_command()} dev")
    return 0


async def the_nodes(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("1. The nodes. Each runner told the host what its machine has.")
    seen = await guide.show("node", "list")
    guide.must(all(name in seen.text for name in cluster.nodes), "all nodes are listed")


async def a_task(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("2. A task. A command goes in, runs on a node that has room, and its output and exit code come out.")
    (task_id,) = await guide.submit("--name", "hello", "--", "echo", "hello from KohakuRiver")
    await guide.show("task", "wait", task_id)
    seen = await guide.show("task", "logs", task_id)
    guide.must(seen.text == "hello from KohakuRiver", "the log holds what the command printed, and nothing else")


async def a_live_log(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("3. A live log. Lines appear as the task prints them.")
    script = f'for i in $(seq {STEPS}); do echo "step $i of {STEPS}"; sleep {STEP_PAUSE_SECONDS}; done'
    (task_id,) = await guide.submit("--", "sh", "-c", script)
    seen = await guide.show("task", "logs", "-f", task_id)
    guide.must(seen.lines == tuple(f"step {n} of {STEPS}" for n in range(1, STEPS + 1)), "every line arrives once")
    spread = seen.times[-1] - seen.times[0]
    guide.must(spread > STEP_PAUSE_SECONDS / 2, "lines arrive one by one, not all at the end")


async def one_that_fails(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("4. One that fails. With --wait, submit exits as the task does: here with 3.")
    seen = await guide.show("task", "submit", "--wait", "--", "sh", "-c", 'echo "no such data" >&2; exit 3', code=3)
    task_id = next((line for line in seen.lines if line.isdigit()), "")
    seen = await guide.show("task", "logs", "--stderr", task_id)
    guide.must(seen.text == "no such data", "what it wrote to standard error is kept apart")
    task = await guide.task(task_id)
    guide.must((task.status, task.exit_code) == (Status.FAILED, 3), "the task is `failed` with exit code 3")


async def one_that_is_killed(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("5. One that is killed. It counts as killed when it is true, not when it was asked for.")
    (task_id,) = await guide.submit("--name", "endless", "--", "sleep", "600")
    await guide.until(task_id, Status.RUNNING)
    await guide.show("task", "kill", task_id)
    await guide.until(task_id, Status.KILLED)
    seen = await guide.show("task", "status", task_id)
    guide.must("killed" in seen.text, "its status is `killed`")


async def one_that_waits(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("6. One that waits. Two tasks take every core; a third is told, node by node, what it waits for.")
    cores = min(node.cores for node in await guide.ask(host_api.NODE_LIST, Nothing()))
    targets = [word for name in cluster.nodes for word in ("-t", name)]
    holding = await guide.submit(*targets, "-c", str(cores), "--", "sleep", "600")
    for task_id in holding:
        await guide.until(task_id, Status.RUNNING)
    (waiting,) = await guide.submit("-c", str(cores), "--name", "patient", "--", "echo", "my turn")
    seen = await guide.show("task", "status", waiting)
    reasons = [f"{name}: {cores} core" in seen.text for name in cluster.nodes]
    guide.must("pending" in seen.text and all(reasons), "it is `pending`, with a reason for each node")
    guide.tell("   One of the two is killed, and the third has its turn.")
    await guide.show("task", "kill", holding[0])
    await guide.show("task", "wait", waiting)
    seen = await guide.show("task", "logs", waiting)
    guide.must(seen.text == "my turn", "it ran as soon as there was room")
    await guide.show("task", "kill", *holding[1:])
    await guide.until(holding[1], Status.KILLED)


async def the_totals(guide: Guide, cluster: "DevCluster") -> None:
    guide.tell("7. What the cluster did, in one look.")
    await guide.show("node", "summary")
    await guide.show("task", "list")
    tasks = await guide.ask(host_api.TASK_LIST, ListAll())
    ends = Counter(task.status for task in tasks)
    wanted = {Status.COMPLETED: 3, Status.FAILED: 1, Status.KILLED: 3}
    guide.must(ends == wanted, "three completed, one failed and three were killed")


def say(text: str) -> None:
    """To the terminal, at once."""
    print(text, flush=True)
