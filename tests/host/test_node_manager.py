"""Placement: whatever is asked of whatever nodes, nothing is given twice and nobody is starved."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.host.services.node_manager import (
    Demand,
    Holding,
    NodeResources,
    Placement,
    demand_of,
    explain,
    find_suitable_node,
    fits_now,
    get_node_available_cores,
    get_node_available_gpus,
    get_node_available_memory,
    place,
    within_reach,
)
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.codec import Snowflake

NAMES = ("alpha", "beta", "gamma", "delta")
GB = 10**9


def node(hostname: str = "alpha", cores: int = 8, memory: int = 16, gpus: int = 0, closed: str = "") -> NodeResources:
    return NodeResources(hostname, cores, memory * GB, frozenset(range(gpus)), closed=closed)


def nodes_of(*nodes: NodeResources) -> dict[str, NodeResources]:
    return {each.hostname: each for each in nodes}


def task(number: int, cores: int = 1, memory: int = 0, gpus: str = "0", target: str | None = None) -> Queued:
    return Queued(Snowflake(number), 0, cores, memory * GB, gpus, target)


def held(number: int, cores: int, memory: int = 0, gpus: tuple[int, ...] = ()) -> Holding:
    return Holding((0, number), cores, memory * GB, frozenset(gpus))


def demand(queued: Queued) -> Demand:
    return demand_of(queued.cores, queued.memory_bytes, queued.gpus, queued.target)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, NodeResources]:
    """A few nodes, some closed, with tasks on them; one may have shrunk below what was given out."""
    made = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        each = node(name, draw(st.integers(0, 8)), draw(st.integers(0, 9)), draw(st.integers(0, 4)))
        each.closed = draw(st.sampled_from(["", "", "", "offline", "draining (x)"]))
        each.numa_nodes = frozenset(range(draw(st.integers(0, 2))))
        each.memory_used_bytes = draw(st.integers(0, 10)) * GB
        free = sorted(each.gpus)
        for number in range(draw(st.integers(0, 3))):
            gpus = tuple(free.pop() for _ in range(draw(st.integers(0, len(free)))))
            each.take(
                held(draw(st.integers(1, 60)) * 10 + number, draw(st.integers(0, 4)), draw(st.integers(0, 4)), gpus)
            )
        made.append(each)
    return nodes_of(*made)


@st.composite
def queues(draw: st.DrawFn) -> list[Queued]:
    gpus = st.sampled_from(["0", "0", "1", "2", "[]", "[0]", "[1,0]", "[3]"])
    target = st.sampled_from([None, None, None, "alpha", "beta", "beta:0", "alpha::0", "gamma:1::0,1", "nowhere"])
    made = [
        Queued(Snowflake(1000 + n), draw(st.integers(-1, 1)), draw(st.integers(0, 5)), draw(st.integers(0, 5)) * GB,
               draw(gpus), draw(target))
        for n in range(draw(st.integers(0, 12)))
    ]  # fmt: skip
    return sorted(made, key=lambda t: (-t.priority, t.task_id))


@dataclass
class Free:
    """What was free on a node before a pass; memory is what is neither reserved nor in use."""

    cores: int
    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    gpus: set[int]

    @property
    def memory_bytes(self) -> int:
        return max(0, self.total_bytes - max(self.reserved_bytes, self.used_bytes))


def free_on(nodes: dict[str, NodeResources]) -> dict[str, Free]:
    return {
        name: Free(
            max(0, n.cores - sum(h.cores for h in n.holdings)),
            n.memory_bytes,
            sum(h.memory_bytes for h in n.holdings),
            n.memory_used_bytes,
            set(n.gpus).difference(*(h.gpus for h in n.holdings)),
        )
        for name, n in nodes.items()
    }


@settings(deadline=None, max_examples=80)
@given(clusters(), queues(), st.data())
def test_nothing_is_given_that_is_not_free_open_and_asked_for(
    nodes: dict[str, NodeResources], queue: list[Queued], data: st.DataObject
) -> None:
    shunned = {t.task_id: {"alpha"} for t in queue if data.draw(st.integers(0, 4)) == 0}
    free, asked = free_on(nodes), {t.task_id: t for t in queue}
    made = place(queue, nodes, shunned)
    assert len({p.task_id for p in made}) == len(made)
    for placement in made:
        want, left = demand(asked[placement.task_id]), free[placement.hostname]
        at = nodes[placement.hostname]
        assert not at.closed and placement.hostname not in shunned.get(placement.task_id, ())
        assert want.hostname in (None, placement.hostname)
        assert placement.numa_node == want.numa_node and (want.numa_node is None or want.numa_node in at.numa_nodes)
        assert len(placement.gpus) == len(set(placement.gpus)) == want.gpus and set(placement.gpus) <= left.gpus
        assert want.gpu_indices in (None, frozenset(placement.gpus))
        assert want.cores <= left.cores and want.memory_bytes <= left.memory_bytes
        left.cores -= want.cores
        left.reserved_bytes += want.memory_bytes
        left.gpus -= set(placement.gpus)
    for name, left in free.items():
        assert get_node_available_cores(nodes[name]) == left.cores >= 0
        assert set(get_node_available_gpus(nodes[name])) == left.gpus
        assert get_node_available_memory(nodes[name]) == left.memory_bytes >= 0


@settings(deadline=None, max_examples=50)
@given(clusters(), queues())
def test_equal_demands_are_served_in_queue_order_and_the_head_is_never_passed_over(
    nodes: dict[str, NodeResources], queue: list[Queued]
) -> None:
    best = find_suitable_node(demand(queue[0]), [n for n in nodes.values() if _asked(queue[0], n)]) if queue else None
    made = place(queue, nodes, {})
    placed = {p.task_id for p in made}
    assert [p.task_id for p in made] == [t.task_id for t in queue if t.task_id in placed], "in queue order"
    waits: set[Demand] = set()
    for each in queue:
        assert not (each.task_id in placed and demand(each) in waits)
        if each.task_id not in placed:
            waits.add(demand(each))
    if best is not None:
        assert made[0].task_id == queue[0].task_id and made[0].hostname == best.hostname


def _asked(queued: Queued, at: NodeResources) -> bool:
    return demand(queued).hostname in (None, at.hostname)


@settings(deadline=None, max_examples=50)
@given(clusters(), queues(), st.integers(1, 4))
def test_many_small_passes_place_what_one_great_pass_places(
    nodes: dict[str, NodeResources], queue: list[Queued], limit: int
) -> None:
    first = place(queue, nodes, {}, limit=limit)
    assert len(first) <= limit
    assert (
        len(first) == limit
        or {p.task_id for p in place([t for t in queue if t.task_id not in _ids(first)], nodes, {})} == set()
    )


def _ids(made: list[Placement]) -> set[int]:
    return {p.task_id for p in made}


def test_the_node_with_most_free_cores_comes_first_and_then_the_name_decides() -> None:
    nodes = nodes_of(node("beta", 4), node("alpha", 4), node("gamma", 6))
    made = place([task(n) for n in range(1, 15)], nodes, {})
    names = [p.hostname for p in made]
    assert names == [
        "gamma",
        "gamma",
        "alpha",
        "beta",
        "gamma",
        "alpha",
        "beta",
        "gamma",
        "alpha",
        "beta",
        "gamma",
        "alpha",
        "beta",
        "gamma",
    ]


def test_memory_is_what_is_neither_reserved_nor_used() -> None:
    at = node(memory=16)
    at.take(held(1, 1, memory=4))
    at.memory_used_bytes = 3 * GB
    assert get_node_available_memory(at) == 12 * GB, "its tasks may yet use all that they reserved"
    at.memory_used_bytes = 7 * GB
    assert get_node_available_memory(at) == 9 * GB, "and others use more than was reserved"
    at.memory_used_bytes = 99 * GB
    assert get_node_available_memory(at) == 0


def test_gpus_are_named_by_count_by_index_or_by_target() -> None:
    nodes = nodes_of(node(gpus=8, cores=99))
    queue = [task(1, gpus="2"), task(2, gpus="[7,5]"), task(3, gpus="4", target="alpha::3"), task(4, gpus="[]"), task(5, gpus="9"),
             task(6, gpus="[0]"), task(7, gpus="3")]  # fmt: skip
    made = {p.task_id: p.gpus for p in place(queue, nodes, {})}
    assert made == {1: (0, 1), 2: (5, 7), 3: (3,), 4: (), 7: (2, 4, 6)}, "a target's GPUs win over a count"


# --- explain -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(clusters(), queues())
def test_who_waits_is_told_one_true_line_for_each_node_that_was_asked_for(
    nodes: dict[str, NodeResources], queue: list[Queued]
) -> None:
    placed = _ids(place(queue, nodes, {}))
    for each in queue:
        if each.task_id in placed:
            continue
        want = demand(each)
        lines = explain(want, nodes, {}).splitlines()
        if want.hostname not in (None, *nodes):
            assert lines == [f"{want.hostname}: no such node is registered"]
            continue
        never = [line for line in lines if line == "no registered node can ever run it"]
        lines = lines[len(never) :]
        asked = [nodes[want.hostname]] if want.hostname else [nodes[name] for name in sorted(nodes)]
        assert [line.partition(": ")[0] for line in lines] == [n.hostname for n in asked]
        for line, at in zip(lines, asked, strict=True):
            _check_line(line.partition(": ")[2], want, at)


def _check_line(why: str, want: Demand, at: NodeResources) -> None:
    """The line says something about the node that is so, and that keeps the task away."""
    words = why.split()
    if at.closed:
        assert why == at.closed
    elif "cores asked" in why:
        limit = at.cores if "it has" in why else get_node_available_cores(at)
        assert int(words[0]) == want.cores > limit == int(words[-2 if words[-1] == "free" else -1])
    elif "memory asked" in why:
        assert want.memory_bytes > (at.memory_bytes if "it has" in why else get_node_available_memory(at))
    elif "GPUs asked" in why:
        limit = len(at.gpus) if "it has" in why else len(get_node_available_gpus(at))
        assert int(words[0]) == want.gpus > limit == int(words[-2 if words[-1] == "free" else -1])
    elif why.startswith(("it has no GPU", "GPU ")):
        assert want.gpu_indices is not None and not want.gpu_indices <= at.gpus - at.gpus_taken
    elif why.startswith("it has no NUMA node"):
        assert want.numa_node not in at.numa_nodes
    else:
        assert why.startswith("held for task ") and at.claim is not None and str(at.claim.claimant) in why
        assert fits_now(want, at), "it would fit, but somebody waits longer"


def test_what_nodes_said_and_what_can_never_be_is_told() -> None:
    nodes = nodes_of(node("alpha", 4), node("beta", 8, closed="draining (disk)"))
    assert explain(Demand(cores=1), {}, {}) == "no node is registered"
    assert explain(Demand(cores=9), nodes, {}) == (
        "no registered node can ever run it\nalpha: 9 cores asked, it has 4\nbeta: draining (disk)"
    )
    assert explain(Demand(cores=5), nodes, {}) == "alpha: 5 cores asked, it has 4\nbeta: draining (disk)"
    said = {"alpha": "turned it away: no such image"}
    assert explain(Demand(cores=1), nodes, said) == "alpha: turned it away: no such image\nbeta: draining (disk)"
    assert explain(Demand(cores=1, hostname="beta"), nodes, {}) == "beta: draining (disk)"


# --- claims ------------------------------------------------------------------------------------------------------------


def test_a_big_task_holds_the_node_where_it_will_fit_soonest_and_leaves_the_others_open() -> None:
    alpha, beta = node("alpha", 8), node("beta", 8)
    alpha.take(held(1, 2))
    beta.take(held(2, 6))
    nodes = nodes_of(alpha, beta)
    made = place([task(10, cores=8), *[task(n, cores=1) for n in range(11, 20)]], nodes, {})
    assert {p.hostname for p in made} == {"beta"} and len(made) == 2
    assert "alpha: held for task 10, which waits longer" in explain(Demand(cores=1), nodes, {})


def test_what_a_claim_leaves_over_may_be_used() -> None:
    alpha = node("alpha", 8)
    alpha.take(held(1, 6))
    made = place([task(10, cores=5), *[task(n) for n in range(11, 20)]], nodes_of(alpha), {})
    assert _ids(made) == {11, 12}, "3 cores are left over beside the claim, 2 of them are free now"


def test_a_task_that_cannot_fit_beside_what_others_use_holds_no_node() -> None:
    alpha = node("alpha", 8, memory=16)
    alpha.memory_used_bytes = 2 * GB
    queue = [task(10, cores=8, memory=15), task(11, cores=1), task(12, cores=1)]
    assert _ids(place(queue, nodes_of(alpha), {})) == {11, 12}, "the machine itself uses two gigabytes for ever"


def test_a_task_holds_no_node_that_turned_it_away() -> None:
    queue = [task(10, cores=8), task(11, cores=4)]
    made = place(queue, nodes_of(node("alpha", 8)), {Snowflake(10): {"alpha"}})
    assert _ids(made) == {11}


def test_a_task_holds_no_node_that_is_closed_or_too_small_for_it() -> None:
    nodes = nodes_of(node("alpha", 8), node("beta", 64, closed="offline"))
    assert _ids(place([task(10, cores=32), task(11, cores=8)], nodes, {})) == {11}


def test_what_can_never_run_hides_nobody_however_much_of_it_waits() -> None:
    nodes = nodes_of(node("alpha", 8), node("beta", 64, closed="offline"))
    hopeless = [task(n, cores=65 + n % 7) for n in range(1, 500)] + [task(500, target="gone"), task(501, gpus="[3]")]
    possible = [task(600, cores=64), task(601), task(602, target="beta"), task(603), task(604)]
    assert [t.task_id for t in within_reach([*hopeless, *possible], nodes, 4)] == [600, 601, 602, 603]
    assert [t.task_id for t in within_reach(hopeless, {}, 4)] == [1, 2, 3, 4], "any node may come"


# --- nobody starves ------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A task on a node, until when."""

    queued: Queued
    placement: Placement
    until: int


@dataclass
class World:
    """A cluster over time, under an endless stream of small tasks; `random` decides what comes and how long it runs."""

    machines: dict[str, tuple[int, int, int]]
    random: Random
    longest: int
    now: int = 0
    last_id: int = 0
    queue: list[Queued] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    claims: dict[int, str] = field(default_factory=dict)

    def submit(self, cores: int, gpus: str = "0", priority: int = 0) -> int:
        self.last_id += 1
        self.queue.append(Queued(Snowflake(self.last_id), priority, cores, 0, gpus, None))
        return self.last_id

    def nodes(self) -> dict[str, NodeResources]:
        found = {name: node(name, cores, memory, gpus) for name, (cores, memory, gpus) in self.machines.items()}
        for each in found.values():
            each.memory_used_bytes = self.random.randrange(8) * GB
        for run in self.running:
            rank = (-run.queued.priority, int(run.queued.task_id))
            found[run.placement.hostname].take(Holding(rank, run.queued.cores, 0, frozenset(run.placement.gpus)))
        return found

    def step(self, small_gpus: str = "0") -> set[int]:
        """One unit of time; which tasks were placed."""
        self.now += 1
        self.running = [run for run in self.running if run.until > self.now]
        while len(self.queue) < 30:
            self.submit(self.random.choice((1, 1, 2)), small_gpus)
        nodes = self.nodes()
        asked = {t.task_id: t for t in self.queue}
        made = place(sorted(self.queue, key=lambda t: (-t.priority, t.task_id)), nodes, {}, self.claims)
        self.claims = {n.claim.claimant: n.hostname for n in nodes.values() if n.claim}
        for placement in made:
            until = self.now + self.random.randint(1, self.longest)
            self.running.append(Running(asked[placement.task_id], placement, until))
        self.queue = [t for t in self.queue if t.task_id not in _ids(made)]
        return _ids(made)


MACHINES = st.lists(st.tuples(st.integers(2, 8), st.just(16), st.just(4)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(MACHINES, st.integers(0, 2**32), st.integers(1, 9), st.data())
def test_a_big_task_is_not_starved_by_an_endless_stream_of_small_ones(
    machines: list[tuple[int, int, int]], seed: int, longest: int, data: st.DataObject
) -> None:
    world = World(dict(zip(NAMES, machines, strict=False)), Random(seed), longest)
    for _ in range(5):
        world.step()
    world.queue.clear()
    big = world.submit(data.draw(st.integers(2, max(cores for cores, _, _ in machines))))
    for _ in range(longest + 1):
        if big in world.step():
            return
    raise AssertionError(f"it waits for ever: {world.running}")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from(["[0,1]", "[1]", "2", "3", "4", "[0,1,2,3]"]))
def test_a_task_that_names_gpus_is_not_starved_either(seed: int, longest: int, gpus: str) -> None:
    world = World({"alpha": (64, 16, 4), "beta": (64, 16, 4)}, Random(seed), longest)
    for _ in range(5):
        world.step(small_gpus="1")
    world.queue.clear()
    big = world.submit(1, gpus)
    for _ in range(longest + 2):
        if big in world.step(small_gpus="1"):
            return
    raise AssertionError("it waits for ever")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_many_big_tasks_all_come_to_run(seed: int) -> None:
    random = Random(seed)
    world = World({"alpha": (8, 16, 4), "beta": (4, 16, 2), "gamma": (2, 16, 0)}, random, 5)
    for _ in range(5):
        world.step()
    world.queue.clear()
    wanted = [world.submit(random.randint(2, 8), random.choice(("0", "1", "[2]", "4"))) for _ in range(10)]
    waiting = set(wanted)
    for _ in range(10 * 8):
        waiting -= world.step(small_gpus=random.choice(("0", "1")))
        if not waiting:
            return
    raise AssertionError(f"{waiting} wait for ever")


def test_a_higher_priority_goes_first() -> None:
    queue = [Queued(Snowflake(9), 5, 4, 0, "0", None), Queued(Snowflake(1), 0, 4, 0, "0", None)]
    assert [p.task_id for p in place(queue, nodes_of(node(cores=4)), {})] == [9]


def small_queues() -> Iterator[list[Queued]]:
    yield []
    yield [task(1, cores=0), task(2, cores=0)]


@pytest.mark.parametrize("queue", list(small_queues()))
def test_tasks_that_need_nothing_are_placed_on_anything_open(queue: list[Queued]) -> None:
    assert len(place(queue, nodes_of(node(cores=0, memory=0)), {})) == len(queue)
    assert place(queue, {}, {}) == []
