"""Ids sort by the time they were made and never repeat, whatever the clock does."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.codec import MAX_SNOWFLAKE
from kohakuriver.model.snowflake import EPOCH_MS, Snowflakes

STEPS = st.lists(
    st.floats(-7200, 7200) | st.sampled_from([0.0, 0.0001, 0.001, -3600.0, 3600.0]), min_size=1, max_size=60
)


class Clock:
    """A wall clock that steps by itself at each reading."""

    def __init__(self, start: float, steps: list[float]) -> None:
        self.at, self.steps = start, list(steps)

    def __call__(self) -> float:
        self.at = max(0.0, self.at + (self.steps.pop() if self.steps else 0))
        return self.at


@settings(deadline=None, max_examples=50)
@given(STEPS, st.integers(0, 2**20))
def test_ids_grow_whichever_way_the_clock_steps(steps: list[float], instance: int) -> None:
    ids = Snowflakes(Clock(1_760_000_000.0, steps), instance)
    made = [ids.next() for _ in range(len(steps) + 20)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(0 < i <= MAX_SNOWFLAKE and i >> 12 & 0x3FF == instance & 0x3FF for i in made)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(STEPS, st.integers(0, 1023)), min_size=2, max_size=6))
def test_ids_grow_across_restarts_with_other_instances(lives: list[tuple[list[float], int]]) -> None:
    made = [0]
    for steps, instance in lives:
        ids = Snowflakes(Clock(1_760_000_000.0, steps), instance, last=made[-1])
        made += [ids.next() for _ in range(3)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_a_millisecond_that_is_used_up_borrows_from_the_next() -> None:
    ids = Snowflakes(lambda: 1_760_000_000.0, 5)
    made = [ids.next() for _ in range(10_000)]
    assert len(set(made)) == 10_000 and made == sorted(made)
    assert (made[-1] >> 22) - (made[0] >> 22) == 2


def test_an_id_tells_when_it_was_made() -> None:
    made = Snowflakes(lambda: 1_760_000_000.123, 1).next()
    assert abs((made >> 22) + EPOCH_MS - 1_760_000_000_123) <= 1


def test_a_clock_before_the_epoch_still_gives_ids() -> None:
    ids = Snowflakes(lambda: 0.0, 0)
    assert 0 < ids.next() < ids.next()
