"""How often somebody may fail: a few times at once, then ever so often."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from kohakuriver.model.errors import TooMany

MOST_KEYS = 10_000


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
            raise TooMany(f"{self.told}; try again in {int(wait) + 1} s", {"retry_after_seconds": int(wait) + 1})
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
