"""Tasks over several nodes start together or not at all, and share one fate."""

from typing import Any, cast

import pytest

from kohakuriver.host.services.gangs import Act, Gangs, settle, waiting
from kohakuriver.host.services.node_manager import NodeResources, place
from kohakuriver.host.store.gangs import Member
from kohakuriver.host.store.tasks import Queued
from kohakuriver.model.lifecycle import Desired, Status

S = Status


def member(task_id: int, status: Status, rank: int = 0, size: int = 3, stops: bool = True, **other: Any) -> Member:
    values = {"gang": 1, "task_id": task_id, "rank": rank, "size": size, "stops_together": stops}
    return Member(**cast(Any, values | {"status": status, "desired": Desired.RUN} | other))


def gang(*statuses: Status, stops: bool = True) -> list[Member]:
    return [member(number, status, number - 1, len(statuses), stops) for number, status in enumerate(statuses, 1)]


def queued(task_id: int, cores: int = 2, target: str | None = None) -> Queued:
    return Queued(cast(Any, task_id), 0, cores, 0, "0", target, "eve")


def nodes(**cores: int) -> dict[str, NodeResources]:
    return {name: NodeResources(name, count, 10**9) for name, count in cores.items()}


def gangs_of(*sizes: int) -> Gangs:
    """Gangs with ids counted on from 1."""
    found, first = Gangs(), 1
    for size in sizes:
        ids = cast(Any, tuple(range(first, first + size)))
        found.of.update(dict.fromkeys(ids, ids))
        first += size
    return found


def test_a_gang_gets_a_node_for_each_of_its_tasks() -> None:
    made = place([queued(1), queued(2)], nodes(a=4, b=4), {}, gangs=gangs_of(2))
    assert [(p.task_id, p.hostname) for p in made] == [(1, "a"), (2, "b")]


def test_a_gang_that_does_not_fit_whole_gets_nothing_and_holds_nodes_against_what_comes_behind() -> None:
    cluster = nodes(a=4, b=1)
    assert place([queued(1), queued(2), queued(9, cores=4)], cluster, {}, gangs=gangs_of(2)) == []
    assert cluster["a"].claim and cluster["a"].claim.claimant == 1


def test_two_tasks_of_a_gang_never_share_a_node() -> None:
    assert place([queued(1), queued(2)], nodes(a=100), {}, gangs=gangs_of(2)) == []


def test_a_gang_of_which_some_are_not_in_the_queue_waits() -> None:
    assert place([queued(2)], nodes(a=4, b=4), {}, gangs=gangs_of(2)) == []


def test_a_pinned_rank_gets_its_node_and_the_others_make_room() -> None:
    made = place([queued(1, target="b"), queued(2)], nodes(a=2, b=100), {}, gangs=gangs_of(2))
    assert {p.task_id: p.hostname for p in made} == {1: "b", 2: "a"}


def test_two_gangs_and_a_task_share_what_there_is_in_order() -> None:
    queue = [queued(number) for number in range(1, 6)]
    made = place(queue, nodes(a=4, b=4), {}, gangs=gangs_of(2, 2))
    assert [p.task_id for p in made] == [1, 2, 3, 4]


def test_a_gang_keeps_away_from_nodes_that_turned_one_of_it_away() -> None:
    shunned = cast(Any, {1: {"a"}, 2: {"a"}})
    assert place([queued(1), queued(2)], nodes(a=4, b=4), shunned, gangs=gangs_of(2)) == []
    assert len(place([queued(1), queued(2)], nodes(a=4, b=4, c=4), shunned, gangs=gangs_of(2))) == 2


@pytest.mark.parametrize("end", [S.FAILED, S.KILLED, S.KILLED_OOM, S.LOST])
def test_when_one_fails_the_rest_are_stopped(end: Status) -> None:
    acts = settle(gang(S.RUNNING, end, S.ASSIGNING)).acts
    assert [(m.task_id, act) for m, act, _ in acts] == [(1, Act.END), (3, Act.END)]
    assert f"rank 1 of its group is {end}" in acts[0][2]


def test_when_asked_so_the_rest_go_on() -> None:
    assert settle(gang(S.RUNNING, S.FAILED, S.RUNNING, stops=False)).acts == []


def test_when_one_waits_again_all_start_anew_together() -> None:
    acts = settle(gang(S.RUNNING, S.PENDING, S.ASSIGNING)).acts
    assert [(m.task_id, act) for m, act, _ in acts] == [(1, Act.RETURN), (3, Act.RETURN)]


def test_one_that_waits_again_when_others_are_over_is_ended() -> None:
    acts = settle(gang(S.COMPLETED, S.PENDING)).acts
    assert [(m.task_id, act) for m, act, _ in acts] == [(2, Act.END)]


def test_nothing_is_done_to_a_gang_that_runs_or_completes_or_waits_for_a_yes() -> None:
    for standing in ((S.RUNNING, S.RUNNING), (S.COMPLETED, S.RUNNING), (S.PENDING, S.PENDING_APPROVAL)):
        settled = settle(gang(*standing))
        assert settled.acts == [] and settled.over == []


def test_a_gang_is_over_when_all_of_it_are() -> None:
    assert settle(gang(S.COMPLETED, S.COMPLETED)).over == [1]
    assert settle(gang(S.FAILED, S.KILLED)).over == [1]


def test_who_waits_is_told_for_whom() -> None:
    found = waiting(gang(S.PENDING, S.RUNNING, S.PENDING))
    assert set(found.of) == {1, 3} and "all 3 tasks" in found.waits[cast(Any, 1)]
