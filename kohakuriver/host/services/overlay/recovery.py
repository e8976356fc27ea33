"""What the kernel's devices tell of a host that lost its memory: pure."""

from collections.abc import Iterable

from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.model.overlay import Ranges, device_number
from kohakuriver.system.network_plan import EVERYBODY, Forward, Mark, Seen, is_ours

UNKNOWN = "?"  # no node can be called so: the part waits for its runner to come and name itself


def recovered(ranges: Ranges, seen: Seen, mark: Mark, known: Iterable[OverlayAllocation]) -> list[OverlayAllocation]:
    """Parts that the kernel still serves and the store does not know; nobody knows the names of their runners."""
    taken = {allocation.number for allocation in known}
    found = {}
    for thing in seen.things:
        if isinstance(thing, Forward) and thing.mac == EVERYBODY and is_ours(seen.devices[thing.device], mark):
            number = device_number(thing.device)
            if number and number <= ranges.most_runners and number not in taken:
                found[number] = OverlayAllocation(number, UNKNOWN, thing.machine, 0.0)
    return [found[number] for number in sorted(found)]
