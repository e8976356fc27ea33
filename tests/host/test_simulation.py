"""Host and runners under a network that drops, doubles, reorders and delays: in the end the rows say what is true."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kohakuriver.model.lifecycle import FINAL, Status
from kohakuriver.model.report import WorkloadState
from tests.host.simulation import Cluster

MEMORY = Path("/dev/shm")
FAST = str(MEMORY) if os.access(MEMORY, os.W_OK) else None
LINES = ("ok", "cut", "deaf", "refuses here", "refuses", "ok")
Move = tuple[str, int]


def play(script: Callable[[Cluster], Awaitable[None]]) -> None:
    folder = Path(tempfile.mkdtemp(dir=FAST))

    async def body() -> None:
        cluster = Cluster(folder / "host.db")
        try:
            async with asyncio.timeout(60):
                await script(cluster)
        finally:
            await cluster.stop()

    try:
        asyncio.run(body())
    finally:
        shutil.rmtree(folder)


async def act(cluster: Cluster, what: str, choice: int) -> None:
    """One thing that happens; `choice` says to whom, and how."""
    runner = cluster.runners[("n1", "n2")[choice % 2]]
    if what == "submit":
        await cluster.submit(
            max_attempts=1 + choice % 3, required_cores=choice % 4, required_gpus=(0, 1, 2)[choice % 3]
        )
    elif what in ("kill", "pause", "resume"):
        if cluster.last_id:
            await cluster.steer(what, 1 + choice % cluster.last_id)
    elif what == "speak":
        cluster.speak(runner)
    elif what == "hear":
        await cluster.deliver(choice)
    elif what == "hear the last":
        await cluster.deliver(-1)
    elif what == "hear without answer":
        await cluster.deliver(choice, answered=False)
    elif what == "lose":
        cluster.lose(choice)
    elif what == "go on":
        runner.go_on(choice // 2)
    elif what == "flip":
        runner.flip(choice // 2)
    elif what == "restart runner":
        runner.restart()
    elif what == "restart host":
        await cluster.restart()
    elif what == "line":
        runner.line = LINES[choice // 2 % len(LINES)]
    elif what == "turn":
        await cluster.turn()
    elif what == "wait":
        await cluster.passes(choice + 1)
    elif what == "wait long":
        await cluster.passes(45)


ACTIONS = ("submit", "submit", "kill", "pause", "resume", "speak", "speak", "speak", "hear", "hear the last", "hear the last",
           "hear without answer", "lose", "go on", "go on", "go on", "flip", "restart runner", "restart host", "line", "turn",
           "turn", "wait", "wait long")  # fmt: skip
MOVES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 11)), max_size=60)
JOINED: list[Move] = [("speak", 0), ("hear the last", 0), ("speak", 1), ("hear the last", 0)]


async def check_truth(cluster: Cluster) -> None:
    """What the rows say against what really happened on the nodes."""
    begun: Counter[tuple[int, int]] = Counter()
    ends: dict[tuple[int, int], WorkloadState] = {}
    for runner in cluster.runners.values():
        begun.update(runner.begun)
        ends |= runner.ends
    assert max(begun.values(), default=0) <= 1, "an attempt was begun twice"
    for task in await cluster.tasks():
        tries = sum(task_id == task.task_id for task_id, _ in begun)
        assert tries <= task.max_attempts, f"{task.task_id} ran {tries} times, and {task.max_attempts} were allowed"
        end = ends.get((task.task_id, task.attempt))
        was_given_up = task.assigned_node is None  # the attempt before was fenced off, and no other came to be
        if task.status in FINAL and end is not None and not was_given_up:
            assert task.exit_code == end.exit_code
            assert task.status is (
                Status.KILLED if end.killed else Status.COMPLETED if end.exit_code == 0 else Status.FAILED
            )
        assert task.status is not Status.COMPLETED or end is not None
        assert (task.task_id, task.attempt) not in begun or end is not None or task.status in FINAL | {Status.LOST}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(MOVES)
@example(
    [
        ("submit", 1),
        ("turn", 0),
        ("go on", 0),
        ("speak", 0),
        ("go on", 0),
        ("speak", 0),
        ("hear the last", 0),
        ("hear", 0),
    ]
)
@example([("submit", 0), ("turn", 0), ("go on", 0), ("speak", 0), ("hear the last", 0), ("wait long", 0)])
def test_the_rows_come_to_say_what_is_true(moves: list[Move]) -> None:
    async def script(cluster: Cluster) -> None:
        for what, choice in JOINED + moves:
            await act(cluster, what, choice)
        await cluster.settle()
        await check_truth(cluster)

    play(script)


@pytest.mark.parametrize("seed", range(2))
def test_so_do_they_after_a_long_day(seed: int) -> None:
    random = Random(seed)
    moves = [(random.choice(ACTIONS), random.randrange(12)) for _ in range(250)]

    async def script(cluster: Cluster) -> None:
        for what, choice in JOINED + moves:
            await act(cluster, what, choice)
        await cluster.settle(200)
        await check_truth(cluster)

    play(script)
