"""What the host remembers of a runner's part of the overlay, and how parts are given out: pure."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from kohakuriver.model.errors import TooMany
from kohakuriver.model.overlay import Ranges


@dataclass(frozen=True, slots=True)
class OverlayAllocation:
    """A runner's part: its number, where its machine is, and when it was last known to use it (UTC unix seconds)."""

    number: int
    hostname: str
    machine: str
    used_at: float


def choose_number(
    ranges: Ranges,
    taken: Sequence[OverlayAllocation],
    claimed: str,
    may_go: Callable[[OverlayAllocation], bool],
) -> int:
    """The part for a runner that has none: what it says it had if that is free, else a free one, else an idle one's.

    Idle ones (those that `may_go`) lose theirs only when no other is free, the longest unused first. Raises TooMany.
    """
    numbers = {allocation.number for allocation in taken}
    had = claimed_number(ranges, claimed)
    if had and had not in numbers:
        return had
    for number in range(1, ranges.most_runners + 1):
        if number not in numbers:
            return number
    for allocation in sorted(taken, key=lambda a: (a.used_at, a.number)):
        if may_go(allocation):
            return allocation.number
    raise TooMany(f"the overlay has room for {ranges.most_runners} runners, and all of them are in use")


def claimed_number(ranges: Ranges, subnet: str) -> int:
    """Which part a subnet is; 0 when it is none of this overlay's."""
    if not subnet:
        return 0
    network = IPv4Network(subnet, strict=False)
    if not network.subnet_of(ranges.network):
        return 0
    number = ranges.number_of(network[0])
    return number if number and ranges.subnet(number).network == network else 0


def members(allocations: Iterable[OverlayAllocation], here: Collection[str]) -> list[str]:
    """The machines from which VXLAN may come."""
    return sorted({a.machine for a in allocations if a.machine not in here})
