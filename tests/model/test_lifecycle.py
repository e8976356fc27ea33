"""The life of a workload, against the table of the domain page: every status with every event."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.errors import Conflict
from kohakuriver.model.lifecycle import ENDS, FINAL, NEXT, ON_NODE, UNFINISHED, Event, Status, after

S, E = Status, Event
EVENTS = st.lists(st.sampled_from(list(Event)), max_size=40)

# Status by status: what may happen to it, and what it then is. Everything else is refused.
TABLE = """
pending_approval  approved      pending
pending_approval  rejected      rejected
pending_approval  killed        killed
pending           placed        assigning
pending           adopted       lost
pending           killed        killed
pending           stopped       stopped
assigning         returned      pending
assigning         refused       failed
assigning         started       running
assigning         exited_ok     completed
assigning         exited_bad    failed
assigning         oom_killed    killed_oom
assigning         killed        killed
assigning         stopped       stopped
assigning         node_lost     lost
assigning         adopted       lost
assigning         retried       pending
running           paused        paused
running           exited_ok     completed
running           exited_bad    failed
running           oom_killed    killed_oom
running           killed        killed
running           stopped       stopped
running           node_lost     lost
running           adopted       lost
running           retried       pending
paused            resumed       running
paused            exited_ok     completed
paused            exited_bad    failed
paused            oom_killed    killed_oom
paused            killed        killed
paused            stopped       stopped
paused            node_lost     lost
paused            adopted       lost
paused            retried       pending
lost              found_alive   running
lost              found_starting assigning
lost              returned      pending
lost              adopted       lost
lost              refused       failed
lost              exited_ok     completed
lost              exited_bad    failed
lost              oom_killed    killed_oom
lost              killed        killed
lost              stopped       stopped
lost              retried       pending
stopped           restarted     pending
stopped           adopted       lost
stopped           killed        killed
"""
ALLOWED = {(S(a), E(b)): S(c) for a, b, c in (line.split() for line in TABLE.strip().splitlines())}


@pytest.mark.parametrize("status", list(Status))
def test_each_event_leads_where_the_domain_page_says_or_is_refused(status: Status) -> None:
    for event in Event:
        if (status, event) in ALLOWED:
            assert after(status, event) is ALLOWED[status, event], event
        else:
            with pytest.raises(Conflict, match=f"a {status} task cannot be {event}"):
                after(status, event)


def test_the_table_and_the_code_hold_the_same_pairs() -> None:
    assert NEXT == ALLOWED


def test_statuses_are_in_one_group_each() -> None:
    assert FINAL | UNFINISHED == set(Status) and not FINAL & UNFINISHED
    assert FINAL == {S.REJECTED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM, S.STOPPED}
    assert ON_NODE == {S.ASSIGNING, S.RUNNING, S.PAUSED}
    assert set(ENDS.values()) == {S.COMPLETED, S.FAILED, S.KILLED_OOM}


def test_every_status_can_be_reached_and_every_event_can_happen() -> None:
    reached = {S.PENDING, S.PENDING_APPROVAL}
    for _ in Status:
        reached |= {to for (at, _), to in NEXT.items() if at in reached}
    assert reached == set(Status)
    assert {event for _, event in NEXT} == set(Event)


def test_only_a_stopped_workspace_has_a_life_after_its_end() -> None:
    after_end = {E.RESTARTED, E.KILLED, E.ADOPTED}
    assert {(at, event) for at, event in NEXT if at in FINAL} == {(S.STOPPED, event) for event in after_end}


def test_whatever_is_unfinished_can_be_killed_and_reaches_an_end() -> None:
    for status in UNFINISHED:
        assert after(status, E.KILLED) is S.KILLED
    for status in ON_NODE | {S.LOST}:
        assert {after(status, end) for end in ENDS} == set(ENDS.values()), "lost or not, the true end counts"


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([S.PENDING, S.PENDING_APPROVAL]), EVENTS)
def test_final_stays_final_under_any_events(status: Status, events: list[Event]) -> None:
    ended: Status | None = None
    for event in events:
        try:
            status = after(status, event)
        except Conflict:
            continue
        if ended is not None:
            assert ended is S.STOPPED and event in (E.RESTARTED, E.KILLED, E.ADOPTED)
        ended = status if status in FINAL else None


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([S.PENDING, S.PENDING_APPROVAL]), EVENTS)
def test_nothing_runs_that_was_not_placed_and_nothing_is_placed_twice(status: Status, events: list[Event]) -> None:
    approved, placed = status is S.PENDING, False
    for event in events:
        try:
            status = after(status, event)
        except Conflict:
            continue
        if event is E.PLACED:
            assert not placed
        approved |= event is E.APPROVED
        placed = placed or event in (E.PLACED, E.ADOPTED)  # by a host that remembers it no more
        assert approved or status in (S.PENDING_APPROVAL, S.REJECTED, S.KILLED)
        assert placed or status not in ON_NODE | {S.LOST, S.COMPLETED, S.FAILED, S.KILLED_OOM}
        placed = placed and status is not S.PENDING
