"""How often somebody may fail: a few times at once, then ever so often."""

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from kohakuriver.model.errors import TooMany

MOST_KEYS = 10_000
AT_HOME_SECONDS = 30 * 86400.0


@dataclass(slots=True)
class Throttle:
    """One allowance for each key; `now` is monotonic seconds.

    A key that was not seen lately may fail `burst` times, then once every `interval_seconds`. Only failures cost: take
    before the attempt, so that parallel ones count, and give back when it went well.
    """

    now: Callable[[], float]
    burst: int
    interval_seconds: float
    told: str = "too many failed attempts"
    _full_at: dict[str, float] = field(default_factory=dict)  # when a key will have its whole allowance again

    def take(self, key: str) -> None:
        """Use up one; raises TooMany, which says after how many seconds to try again."""
        now = self.now()
        full_at = max(self._full_at.pop(key, now), now)
        wait = full_at + self.interval_seconds - now - self.burst * self.interval_seconds
        if wait > 0:
            self._full_at[key] = full_at
            seconds = math.ceil(wait)
            raise TooMany(f"{self.told}; try again in {seconds} s", {"retry_after_seconds": seconds})
        self._make_room(now)
        self._full_at[key] = full_at + self.interval_seconds

    def give_back(self, key: str) -> None:
        """The attempt went well."""
        if key in self._full_at:
            self._full_at[key] -= self.interval_seconds

    def _make_room(self, now: float) -> None:
        if len(self._full_at) < MOST_KEYS:
            return
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) >= MOST_KEYS:
            least = sorted(self._full_at, key=lambda key: self._full_at[key])[: MOST_KEYS // 10]
            for key in least:
                del self._full_at[key]


def network_of(address: str) -> str:
    """The address by which attempts are counted: an IPv6 network of one subscriber (/64) is one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address


@dataclass(slots=True)
class Attempts:
    """What wrong secrets cost: the address they come from, and the account they are for.

    An address from which somebody logged in lately has an allowance of its own for that account, so that strangers who
    guess at his password do not lock him out.
    """

    now: Callable[[], float]
    by_address: Throttle
    by_user: Throttle
    _at_home: dict[tuple[str, str], float] = field(default_factory=dict)

    def begin(self, address: str, user: str = "") -> list[tuple[Throttle, str]]:
        """Count an attempt as failed until it `went_well`; raises TooMany. Gives what to give back."""
        network = network_of(address)
        self.by_address.take(network)
        taken = [(self.by_address, network)]
        if user:
            key = f"{user} {network}" if self._at_home.get((user, network), 0.0) > self.now() else user
            self.by_user.take(key)
            taken.append((self.by_user, key))
        return taken

    def went_well(self, taken: list[tuple[Throttle, str]], address: str, user: str = "") -> None:
        """The secret was right."""
        for throttle, key in taken:
            throttle.give_back(key)
        if user:
            if len(self._at_home) >= MOST_KEYS:
                self._at_home = {}
            self._at_home[user, network_of(address)] = self.now() + AT_HOME_SECONDS


def attempts(now: Callable[[], float]) -> Attempts:
    """The allowances of a host."""
    return Attempts(now, Throttle(now, burst=20, interval_seconds=6.0), Throttle(now, burst=10, interval_seconds=30.0))
