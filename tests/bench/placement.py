"""How long one placement pass takes: 10,000 queued tasks, 200 nodes, 1,600 GPUs."""

import random
import statistics
from collections.abc import Iterator
from functools import partial

from kohakuriver.host.services.node_manager import NodeResources, place, within_reach
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.codec import Snowflake
from tests.bench.figures import Bounds, Figure, at_most, timed

QUEUED, NODES, GPUS_PER_NODE = 10_000, 200, 8


def figures() -> Iterator[Figure]:
    """The whole queue against an empty cluster (most is placed), and against a full one (nothing is)."""
    queue = _queue(random.Random(1))
    empty = [timed(partial(_pass, queue, _cluster())) for _ in range(9)]
    full = _cluster()
    _pass(queue, full)
    again = [timed(partial(_pass, queue, full)) for _ in range(9)]
    wanted = Bounds(absolute=50)
    yield at_most("placement pass, 10,000 queued, empty cluster", statistics.median(empty) * 1000, "ms", wanted)
    yield at_most("placement pass, 10,000 queued, full cluster", statistics.median(again) * 1000, "ms", wanted)


def _pass(queue: list[Queued], nodes: dict[str, NodeResources]) -> None:
    place(within_reach(queue, nodes, QUEUED), nodes, {})


def _cluster() -> dict[str, NodeResources]:
    names = [f"node-{number:03}" for number in range(NODES)]
    return {n: NodeResources(n, 64, 512 * 10**9, gpus=frozenset(range(GPUS_PER_NODE))) for n in names}


def _queue(draw: random.Random) -> list[Queued]:
    """What a lab queues: mostly GPU jobs of a few shapes, some CPU jobs, some pinned to a node."""
    made = []
    for number in range(QUEUED):
        gpus = draw.choice((0, 1, 1, 2, 4, 8))
        memory = draw.choice((0, 16, 64)) * 10**9
        target = f"node-{draw.randrange(NODES):03}" if draw.random() < 0.1 else None
        cores = draw.choice((1, 2, 4, 8))
        made.append(Queued(Snowflake(number + 1), draw.choice((0, 0, 0, 5)), cores, memory, str(gpus), target))
    return sorted(made, key=lambda task: (-task.priority, task.task_id))
