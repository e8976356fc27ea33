"""Docker's network for containers without an address in the overlay; one of our own is made at the first need."""

import asyncio
import math
from ipaddress import IPv4Network

from kohakuriver.model.errors import EngineFailed, Unavailable
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.overlay_plan import MARK
from kohakuriver.system import netlink
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_network import BridgeNetwork, DockerNetworks
from kohakuriver.system.network_plan import clashes

DOCKERS_OWN = ("bridge", "host", "none")
SURE_SECONDS = 30.0  # for how long one that was there is taken to be there still


class PlainNetwork:
    """`trouble` says why it cannot be had, empty when it can."""

    def __init__(self, settings: RunnerSettings, clock: Clock) -> None:
        self._network = BridgeNetwork(
            name=settings.docker_network_name,
            subnet=settings.docker_network_subnet,
            gateway=settings.docker_network_gateway,
        )
        self._networks, self._clock = DockerNetworks(settings.docker_socket), clock
        self._is_given = settings.engine != "docker" or self._network.name in DOCKERS_OWN
        self._making = asyncio.Lock()
        self._seen_at = -math.inf
        self.trouble = ""

    async def ensure(self) -> None:
        """Return when it is there; raises EngineFailed."""
        async with self._making:
            if self._is_given or self._clock.monotonic() - self._seen_at < SURE_SECONDS:
                return
            try:
                await asyncio.to_thread(self._make)
            except (EngineFailed, Unavailable) as failed:
                self.trouble = f"Docker's network {self._network.name} cannot be made: {failed}"
                raise EngineFailed(self.trouble, retry_elsewhere=True) from None
            self.trouble, self._seen_at = "", self._clock.monotonic()

    def warnings(self) -> list[str]:
        """What an admin should know."""
        return [self.trouble] if self.trouble else []

    def _make(self) -> None:
        """Whoever has made one of that name, it is the one that was named."""
        if self._networks.has(self._network.name):
            return
        with netlink.open_netlink() as kernel:
            seen = netlink.look(kernel, MARK)
        taken = clashes(IPv4Network(self._network.subnet), seen, ())
        if taken:
            raise EngineFailed(f"{self._network.subnet} overlaps with what this machine has: {'; '.join(taken[:3])}")
        self._networks.ensure(self._network)
