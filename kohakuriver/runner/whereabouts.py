"""Where this runner is reached: when its machine comes to another address, it listens there and tells the host."""

import asyncio
import logging
import socket
from dataclasses import dataclass

from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.host_link import HostLink
from kohakuriver.runner.node_name import Place, place_of, url_of
from kohakuriver.wire.listen import Door

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The step of a loop."""

    settings: RunnerSettings
    door: Door
    link: HostLink
    scheme: str

    def url_of(self, place: Place) -> str:
        """The root of the runner's API there."""
        return url_of(place.address or socket.gethostname(), self.door.port, self.scheme)

    async def step(self) -> None:
        """Go where the machine is now; while it has no way to the host, stay."""
        place = await asyncio.to_thread(place_of, self.settings)
        if not (place.bind and place.address):
            return
        if place.bind != self.door.address:
            try:
                await self.door.move(place.bind)
            except OSError as refused:
                log.warning("cannot listen, will try again address=%s error=%s", place.bind, refused)
                return
            log.info("listens elsewhere address=%s port=%d", place.bind, self.door.port)
        self.link.move(self.url_of(place))
