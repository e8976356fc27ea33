"""Which node a task goes to: free resources and placement, pure.

A task that does not fit claims the node where it will fit soonest: what comes behind it in the queue may use there
only what the claimant leaves over even when it runs. So nothing small starves something big, and other nodes stay open.
"""

import bisect
import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kohakuriver.host.services.gangs import Gangs
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.units import parse_target, show_bytes

Rank = tuple[int, int]  # less is earlier: (-priority, task id)
NO_CLAIMS: Mapping[int, str] = {}


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task needs; `gpus` is a count, or exact indices when `gpu_indices` is not None.

    `tasks` is of how many tasks it is the sum.
    """

    cores: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_indices: frozenset[int] | None = None
    hostname: str | None = None
    numa_node: int | None = None
    tasks: int = 1


@dataclass(frozen=True, slots=True)
class Holding:
    """What one task has on a node."""

    rank: Rank
    cores: int
    memory_bytes: int
    gpus: frozenset[int]


@dataclass(slots=True)
class Room:
    """What a claim leaves over for those who come behind the claimant; `kept` are GPUs that it named."""

    claimant: int
    cores: int
    memory_bytes: int
    gpus: int
    kept: frozenset[int]


@dataclass(slots=True)
class NodeResources:
    """One node as placement sees it; `closed` says why it takes nothing, empty when it does."""

    hostname: str
    cores: int
    memory_bytes: int
    gpus: frozenset[int] = frozenset()
    numa_nodes: frozenset[int] = frozenset()
    memory_used_bytes: int = 0
    closed: str = ""
    holdings: list[Holding] = field(default_factory=list)
    cores_taken: int = 0
    memory_taken_bytes: int = 0
    gpus_taken: set[int] = field(default_factory=set)
    claim: Room | None = None

    def take(self, holding: Holding) -> None:
        """Give resources to a task."""
        self.holdings.append(holding)
        self.cores_taken += holding.cores
        self.memory_taken_bytes += holding.memory_bytes
        self.gpus_taken |= holding.gpus & self.gpus  # one that was taken out of the machine is not missed


@dataclass(frozen=True, slots=True)
class Placement:
    """One task's place: a node, GPUs by index, perhaps a NUMA node."""

    task_id: Snowflake
    hostname: str
    gpus: tuple[int, ...]
    numa_node: int | None


class Quotas(Protocol):
    """What people may have, whatever is free."""

    def refuses(self, task: Queued, demand: Demand) -> bool:
        """Whether it must wait for its owner's sake."""

    def take(self, task: Queued, demand: Demand) -> None:
        """It was given what it asked for."""


def get_node_available_cores(node: NodeResources) -> int:
    """Cores that nobody has been given."""
    return max(0, node.cores - node.cores_taken)


def get_node_available_gpus(node: NodeResources) -> list[int]:
    """Indices of GPUs that nobody has been given."""
    return sorted(node.gpus - node.gpus_taken)


def get_node_available_memory(node: NodeResources) -> int:
    """Bytes neither given to a task nor in use by anything else."""
    return max(0, node.memory_bytes - max(node.memory_taken_bytes, node.memory_used_bytes))


@functools.lru_cache(maxsize=4096)
def demand_of(cores: int, memory_bytes: int, gpus: str, target: str | None) -> Demand:
    """A task's demand from its columns; GPUs named in the target win over counted ones."""
    at = parse_target(target) if target else None
    asked = json.loads(gpus)
    indices = frozenset(at.gpus) if at and at.gpus else frozenset(asked) if isinstance(asked, list) and asked else None
    count = len(indices) if indices is not None else (0 if isinstance(asked, list) else asked)
    return Demand(cores, memory_bytes, count, indices, at.hostname if at else None, at.numa_node if at else None)


def sum_of(demands: Sequence[Demand]) -> Demand:
    """What several tasks need together, wherever they run."""
    cores, memory_bytes = sum(d.cores for d in demands), sum(d.memory_bytes for d in demands)
    return Demand(cores, memory_bytes, sum(d.gpus for d in demands), tasks=len(demands))


def never_fits(demand: Demand, node: NodeResources) -> str:
    """Why the node could not run it even when empty; empty text when it could."""
    if demand.numa_node is not None and demand.numa_node not in node.numa_nodes:
        return f"it has no NUMA node {demand.numa_node}"
    if demand.cores > node.cores:
        return f"{demand.cores} cores asked, it has {node.cores}"
    if demand.memory_bytes > node.memory_bytes:
        return f"{show_bytes(demand.memory_bytes)} memory asked, it has {show_bytes(node.memory_bytes)}"
    if demand.gpu_indices is not None and not demand.gpu_indices <= node.gpus:
        return f"it has no GPU {', '.join(map(str, sorted(demand.gpu_indices - node.gpus)))}"
    if demand.gpus > len(node.gpus):
        return f"{demand.gpus} GPUs asked, it has {len(node.gpus)}"
    return ""


def fits_now(demand: Demand, node: NodeResources) -> bool:
    """Whether the node could take it at once."""
    return not node.closed and _lacks(demand, node) == "" and not never_fits(demand, node)


def find_suitable_node(demand: Demand, nodes: Iterable[NodeResources]) -> NodeResources | None:
    """The node with most free cores among those that fit, the first by name when several have as many."""
    fitting = [node for node in nodes if fits_now(demand, node)]
    return min(fitting, key=lambda n: (-get_node_available_cores(n), n.hostname), default=None)


def explain(demand: Demand, nodes: Mapping[str, NodeResources], refused: Mapping[str, str]) -> str:
    """Why a task waits, one line a node; `refused` holds what nodes said that turned it away."""
    if not nodes:
        return "no node is registered"
    if demand.hostname is not None and demand.hostname not in nodes:
        return f"{demand.hostname}: no such node is registered"
    asked = [nodes[demand.hostname]] if demand.hostname else [nodes[name] for name in sorted(nodes)]
    lines = [f"{node.hostname}: {refused.get(node.hostname) or _why_not(demand, node)}" for node in asked]
    if all(never_fits(demand, node) for node in asked):
        lines.insert(0, "no registered node can ever run it")
    return "\n".join(lines)


def within_reach(queue: Iterable[Queued], nodes: Mapping[str, NodeResources], most: int) -> Iterator[Queued]:
    """The head of the queue without what no node can ever run: however much of that waits, it hides nobody."""
    fits: dict[tuple[int, int, str, str | None], bool] = {}
    for task in queue:
        asked = (task.cores, task.memory_bytes, task.gpus, task.target)
        if asked not in fits:
            demand = demand_of(*asked)
            fits[asked] = not nodes or any(not never_fits(demand, node) for node in _asked(demand, nodes, ()))
        if fits[asked]:
            yield task
            most -= 1
            if most == 0:
                return


def place(
    queue: Iterable[Queued],
    nodes: Mapping[str, NodeResources],
    shunned: Mapping[Snowflake, Collection[str]],
    held: Mapping[int, str] = NO_CLAIMS,
    limit: int = 1_000_000,
    *,
    quotas: Quotas | None = None,
    gangs: Gangs | None = None,
) -> list[Placement]:
    """Give waiting tasks, in queue order, what is free; `nodes` is changed to match.

    `shunned` names for a task the nodes that turned it away lately, `held` for a claimant the node it had a claim to
    in the pass before: it keeps that one, or it would wait here and there without end. Ends after `limit` placements.
    A task that `quotas` refuses is passed over, and holds no node. Those of `gangs` go together, or not at all.
    """
    ranking = sorted(_standing(node) for node in nodes.values() if not node.closed)
    made: list[Placement] = []
    blocked: set[Demand] = set()
    for task in queue:
        if gangs and task.task_id in gangs.of:
            together = _place_gang(gangs.gather(task), nodes, shunned, held, quotas=quotas)
            if together:
                gangs.placed(task)
                made += together
                ranking = sorted(_standing(node) for node in nodes.values() if not node.closed)
            continue
        demand = demand_of(task.cores, task.memory_bytes, task.gpus, task.target)
        avoid = shunned.get(task.task_id, ())
        if (demand in blocked and not avoid) or (quotas and quotas.refuses(task, demand)):
            continue
        node = _best(demand, nodes, ranking, avoid)
        if node is None:
            if not avoid:
                blocked.add(demand)
            _claim(task, demand, _asked(demand, nodes, avoid), held)
            continue
        del ranking[bisect.bisect_left(ranking, _standing(node))]
        made.append(_give(task, demand, node))
        bisect.insort(ranking, _standing(node))
        if quotas:
            quotas.take(task, demand)
        if len(made) >= limit:
            break
    return made


def _place_gang(
    gang: Sequence[Queued],
    nodes: Mapping[str, NodeResources],
    shunned: Mapping[Snowflake, Collection[str]],
    held: Mapping[int, str],
    *,
    quotas: Quotas | None,
) -> list[Placement]:
    """Give each task of a gang a node of its own; when there are too few, each claims one, and nothing is given."""
    demands = [demand_of(task.cores, task.memory_bytes, task.gpus, task.target) for task in gang]
    if not gang or (quotas and quotas.refuses(gang[0], sum_of(demands))):
        return []
    chosen: dict[Snowflake, NodeResources] = {}
    for task, demand in sorted(zip(gang, demands, strict=True), key=lambda pair: pair[1].hostname is None):
        free = [node for node in _asked(demand, nodes, shunned.get(task.task_id, ())) if node not in chosen.values()]
        fitting = [node for node in free if _fits_beside_claim(demand, node)]
        if not fitting:
            _claim_together(gang, nodes, shunned, held)
            return []
        chosen[task.task_id] = min(fitting, key=_standing)
    if quotas:
        for task, demand in zip(gang, demands, strict=True):
            quotas.take(task, demand)
    return [_give(task, demand, chosen[task.task_id]) for task, demand in zip(gang, demands, strict=True)]


def _claim_together(
    gang: Sequence[Queued],
    nodes: Mapping[str, NodeResources],
    shunned: Mapping[Snowflake, Collection[str]],
    held: Mapping[int, str],
) -> None:
    """Hold as many nodes as the gang needs: what comes behind it may use there only what it leaves over."""
    own = {int(task.task_id) for task in gang}
    for task in gang:
        demand = demand_of(task.cores, task.memory_bytes, task.gpus, task.target)
        open_ones = _asked(demand, nodes, shunned.get(task.task_id, ()))
        _claim(task, demand, [n for n in open_ones if not (n.claim and n.claim.claimant in own)], held)


def _standing(node: NodeResources) -> tuple[int, str]:
    """What puts the node with most free cores first."""
    return -get_node_available_cores(node), node.hostname


def _best(
    demand: Demand, nodes: Mapping[str, NodeResources], ranking: Sequence[tuple[int, str]], avoid: Collection[str]
) -> NodeResources | None:
    if demand.hostname is not None:
        node = nodes.get(demand.hostname)
        return node if node and demand.hostname not in avoid and _fits_beside_claim(demand, node) else None
    for less_cores, hostname in ranking:
        if -less_cores < demand.cores:
            break  # all further ones have fewer cores still
        node = nodes[hostname]
        has_gpus = demand.gpus <= len(node.gpus) - len(node.gpus_taken)  # what most often is not there, looked at first
        if has_gpus and hostname not in avoid and _fits_beside_claim(demand, node):
            return node
    return None


def _fits_beside_claim(demand: Demand, node: NodeResources) -> bool:
    if node.closed or _lacks(demand, node) or never_fits(demand, node):
        return False
    room = node.claim
    if room is None:
        return True
    if demand.cores > room.cores or demand.memory_bytes > room.memory_bytes or demand.gpus > room.gpus:
        return False
    if not demand.gpus or not room.kept:
        return True
    if demand.gpu_indices is not None:
        return not demand.gpu_indices & room.kept
    return demand.gpus <= len(node.gpus - node.gpus_taken - room.kept)


def _give(task: Queued, demand: Demand, node: NodeResources) -> Placement:
    gpus: list[int] = []
    if demand.gpus:
        kept = node.claim.kept if node.claim else ()
        free = [gpu for gpu in get_node_available_gpus(node) if gpu not in kept]
        gpus = free[: demand.gpus] if demand.gpu_indices is None else sorted(demand.gpu_indices)
    node.take(Holding((-task.priority, task.task_id), demand.cores, demand.memory_bytes, frozenset(gpus)))
    if node.claim:
        node.claim.cores -= demand.cores
        node.claim.memory_bytes -= demand.memory_bytes
        node.claim.gpus -= demand.gpus
    return Placement(task.task_id, node.hostname, tuple(gpus), demand.numa_node)


def _claim(task: Queued, demand: Demand, nodes: Iterable[NodeResources], held: Mapping[int, str]) -> None:
    """Hold a node for a task that must wait, unless one where it will fit is held already."""
    possible = []
    for node in nodes:
        if _will_fit(demand, node):
            if node.claim:
                return
            possible.append(node)
    if not possible:
        return
    before = held.get(task.task_id)
    node = max(possible, key=lambda n: (n.hostname == before, _nearness(demand, n), n.hostname))
    rank = (-task.priority, task.task_id)
    behind = [holding for holding in node.holdings if holding.rank > rank]
    memory_bytes = node.memory_bytes - _used_by_others_bytes(node)
    node.claim = Room(
        claimant=task.task_id,
        cores=node.cores - demand.cores - sum(h.cores for h in behind),
        memory_bytes=memory_bytes - demand.memory_bytes - sum(h.memory_bytes for h in behind),
        gpus=len(node.gpus) - demand.gpus - sum(len(h.gpus) for h in behind),
        kept=demand.gpu_indices or frozenset(),
    )


def _asked(demand: Demand, nodes: Mapping[str, NodeResources], avoid: Collection[str]) -> Iterable[NodeResources]:
    if demand.hostname is None:
        return nodes.values() if not avoid else [node for node in nodes.values() if node.hostname not in avoid]
    return [nodes[demand.hostname]] if demand.hostname in nodes and demand.hostname not in avoid else []


def _will_fit(demand: Demand, node: NodeResources) -> bool:
    """Whether it only has to wait for other tasks there; for memory that the machine itself uses it may wait for ever."""
    if node.closed or never_fits(demand, node):
        return False
    return not demand.memory_bytes or demand.memory_bytes <= node.memory_bytes - _used_by_others_bytes(node)


def _used_by_others_bytes(node: NodeResources) -> int:
    """Memory in use that no task can account for."""
    return max(0, node.memory_used_bytes - node.memory_taken_bytes)


def _nearness(demand: Demand, node: NodeResources) -> tuple[int, int, int]:
    """How near a node is to fitting: what is free, counted up to what is asked."""
    gpus = (
        len(demand.gpu_indices & (node.gpus - node.gpus_taken))
        if demand.gpu_indices is not None
        else min(demand.gpus, len(node.gpus) - len(node.gpus_taken))
    )
    return gpus, min(demand.cores, get_node_available_cores(node)), get_node_available_memory(node)


def _lacks(demand: Demand, node: NodeResources) -> str:
    """What is not free just now; empty text when all is."""
    if demand.gpus:
        free_gpus = len(node.gpus) - len(node.gpus_taken)
        if demand.gpus > free_gpus:
            return f"{demand.gpus} GPUs asked, {free_gpus} free"
        if demand.gpu_indices is not None and demand.gpu_indices & node.gpus_taken:
            return f"GPU {', '.join(map(str, sorted(demand.gpu_indices & node.gpus_taken)))} in use"
    if demand.cores and demand.cores > node.cores - node.cores_taken:
        return f"{demand.cores} cores asked, {get_node_available_cores(node)} free"
    if demand.memory_bytes and demand.memory_bytes > get_node_available_memory(node):
        free = show_bytes(get_node_available_memory(node))
        return f"{show_bytes(demand.memory_bytes)} memory asked, {free} free"
    return ""


def _why_not(demand: Demand, node: NodeResources) -> str:
    if node.closed:
        return node.closed
    why = never_fits(demand, node) or _lacks(demand, node)
    if not why and node.claim and not _fits_beside_claim(demand, node):
        why = f"held for task {node.claim.claimant}, which waits longer"
    return why or "about to be placed"
