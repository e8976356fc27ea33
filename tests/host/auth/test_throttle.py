"""Who fails too often waits; others do not."""

import pytest

from kohakuriver.host.auth import throttle
from kohakuriver.host.auth.throttle import Throttle, network_of
from kohakuriver.model.errors import TooMany
from tests.manual_clock import ManualClock


def a_throttle(clock: ManualClock) -> Throttle:
    return Throttle(clock.monotonic, burst=3, interval_seconds=10)


def failures(it: Throttle, key: str) -> int:
    """How many attempts are let through before it says no."""
    for number in range(100):
        try:
            it.take(key)
        except TooMany:
            return number
    return 100


def pass_time(clock: ManualClock, seconds: float) -> None:
    clock._monotonic += seconds


def test_a_few_failures_are_let_through_and_then_one_every_interval() -> None:
    clock = ManualClock()
    it = a_throttle(clock)
    assert failures(it, "a") == 3
    pass_time(clock, 9.9)
    assert failures(it, "a") == 0
    pass_time(clock, 0.2)
    assert failures(it, "a") == 1
    pass_time(clock, 1000)
    assert failures(it, "a") == 3


def test_one_key_does_not_pay_for_another() -> None:
    it = a_throttle(ManualClock())
    assert failures(it, "a") == 3 and failures(it, "b") == 3


def test_success_costs_nothing() -> None:
    it = a_throttle(ManualClock())
    for _ in range(50):
        it.take("a")
        it.give_back("a")
    assert failures(it, "a") == 3


def test_it_says_when_to_try_again_and_means_it() -> None:
    clock = ManualClock()
    it = a_throttle(clock)
    failures(it, "a")
    with pytest.raises(TooMany, match="try again in") as refused:
        it.take("a")
    pass_time(clock, refused.value.details["retry_after_seconds"])
    it.take("a")


def test_asking_again_while_refused_does_not_lengthen_the_wait() -> None:
    clock = ManualClock()
    it = a_throttle(clock)
    for _ in range(1000):
        failures(it, "a")
    pass_time(clock, 10.1)
    it.take("a")


def test_it_remembers_only_so_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_KEYS", 50)
    clock = ManualClock()
    it = a_throttle(clock)
    failures(it, "victim")
    for number in range(500):
        it.take(f"made up {number}")
    assert len(it._full_at) <= 50
    assert failures(it, "victim") == 0  # those that failed most are forgotten last


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("", ""),
    ],
)
def test_one_subscriber_is_one(address: str, network: str) -> None:
    assert network_of(address) == network
