"""How many may come to the SSH port, and be there at once: in all, and of each."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from kohakuriver.host.auth.throttle import Throttle, network_of
from kohakuriver.model.errors import TooMany


@dataclass(slots=True)
class Limit:
    """So many in all, and so many of the same key; `what` is named when there are too many."""

    what: str
    most: int
    most_each: int
    _here: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def place(self, key: str) -> Iterator[None]:
        """A place while the block runs; raises TooMany when there is none."""
        if self._here.total() >= self.most or self._here[key] >= self.most_each:
            raise TooMany(f"too many {self.what} at once")
        self._here[key] += 1
        try:
            yield
        finally:
            self._here[key] -= 1
            if not self._here[key]:
                del self._here[key]

    @property
    def taken(self) -> int:
        """How many there are now."""
        return self._here.total()


@dataclass(frozen=True, slots=True)
class Gate:
    """How often an address may come and go without having logged in, and how much there may be at once."""

    arrivals: Throttle
    failures: Throttle
    strangers: Limit
    connections: Limit
    people: Limit
    channels: Limit

    def arrive(self, address: str) -> tuple[ExitStack, ExitStack]:
        """Somebody nobody knows: what he holds while he is here, and until he has logged in; raises TooMany."""
        network, held, as_stranger = network_of(address), ExitStack(), ExitStack()
        self.failures.take(network)
        self.failures.give_back(network)
        self.arrivals.take(network)
        with ExitStack() as unless_welcome:
            unless_welcome.enter_context(held)
            held.enter_context(self.connections.place(network))
            as_stranger.enter_context(self.strangers.place(network))
            unless_welcome.pop_all()
        return held, as_stranger

    def went_well(self, address: str) -> None:
        """He is known now."""
        self.arrivals.give_back(network_of(address))

    def failed(self, address: str) -> bool:
        """He tried and went; whether that is news."""
        try:
            self.failures.take(network_of(address))
        except TooMany:
            return False
        return True


def gate(now: Callable[[], float]) -> Gate:
    """The gate of a host; `now` is monotonic seconds."""
    return Gate(
        arrivals=Throttle(now, burst=15, interval_seconds=0.2, told="too many SSH connections"),
        failures=Throttle(now, burst=20, interval_seconds=6.0),
        strangers=Limit("SSH connections that have not logged in", 100, 20),
        connections=Limit("SSH connections from one address", 1000, 100),
        people=Limit("SSH connections of one person", 1000, 50),
        channels=Limit("SSH channels of one person", 900, 200),
    )
