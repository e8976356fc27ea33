"""The one stream of Docker events for all our containers, which begins again when the daemon has died."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused
from kohakuriver.system.docker_spec import Owner, key_of
from kohakuriver.system.engine import WorkloadKey

log = logging.getLogger(__name__)
KINDS = ("die", "pause", "unpause", "destroy")
BACKOFF_FIRST_SECONDS, BACKOFF_CAP_SECONDS = 0.1, 5.0
_NANO = 1_000_000_000


class Changes:
    """Keys about which something changed, each once until it is read; for one listener at a time."""

    def __init__(self) -> None:
        self._keys: dict[WorkloadKey, None] = {}
        self._bell = asyncio.Event()
        self._closed = False

    def tell(self, key: WorkloadKey) -> None:
        """Something changed about it."""
        self._keys[key] = None
        self._bell.set()

    def close(self) -> None:
        """Nothing more will change; whoever listens comes to an end."""
        self._closed = True
        self._bell.set()

    async def listen(self) -> AsyncIterator[WorkloadKey]:
        """The keys, in the order of their first change."""
        while not self._closed:
            while self._keys:
                key = next(iter(self._keys))
                del self._keys[key]
                yield key
            self._bell.clear()
            if not self._keys and not self._closed:
                await self._bell.wait()


class EventStream:
    """Listens for as long as it runs; `revived` is called when there are events again, of which some are lost."""

    def __init__(
        self, client: DockerClient, owner: Owner, clock: Clock, revived: Callable[[], Awaitable[None]]
    ) -> None:
        self.changes = Changes()
        self.connected = asyncio.Event()
        self._client = client
        self._owner = owner
        self._clock = clock
        self._revived = revived
        self._was_away = False
        self._since = clock.now()
        self._source: Any = None
        self._closed = False

    async def run(self) -> None:
        """Listen for ever, however often the daemon goes away."""
        failures = 0
        while True:
            try:
                await self._connect()
                failures = 0
                await self._listen()
            except (ApiRefused, EngineFailed) as error:
                failures += 1
                log.warning("docker events are away error=%s", error)
            longest = min(BACKOFF_CAP_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 16))
            await self._clock.sleep(longest * (0.5 + random.random() / 2))

    def close(self) -> None:
        """Hang up; the thread that reads comes to its end."""
        self._closed = True
        self.changes.close()
        if self._source is not None:
            with suppress(OSError):
                self._source.close()

    async def _connect(self) -> None:
        filters = {**self._owner.filters(), "type": ["container"], "event": list(KINDS)}
        since = f"{self._since:.9f}"
        await self._client.look("/version")  # the SDK leaves a socket behind when there is nobody to connect to
        self._source = await self._client.call(
            Pool.EVENTS, lambda api: api.events(since=since, filters=filters, decode=True)
        )
        self.connected.set()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            for event in self._source:
                loop.call_soon_threadsafe(self._take, event)

        try:
            if self._was_away:
                log.info("docker events are back")
                await self._revived()
            await self._client.call(Pool.EVENTS, lambda _: read())
        finally:
            self._source = None
            if not self._closed:
                self.connected.clear()
                self._was_away = True

    def _take(self, event: Mapping[str, Any]) -> None:
        self._since = max(self._since, event.get("timeNano", 0) / _NANO)
        key = key_of(event.get("Actor", {}).get("Attributes", {}))
        if key is not None:
            self.changes.tell(key)
