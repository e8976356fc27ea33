"""The runner's side of its talk with the host: joins, reports each change at once, gives signs of life."""

import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from kohakuriver import __version__
from kohakuriver.model import docker_api, host_api
from kohakuriver.model.docker_api import FetchTarball
from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.image import Tarball
from kohakuriver.model.report import Acknowledged, Changed, Heartbeat, Register, Report
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.vitals import Vitals
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system.engine import EngineInfo
from kohakuriver.system.loops import Wake
from kohakuriver.wire.call import Peer

log = logging.getLogger(__name__)
FIRST_INTERVAL_SECONDS = 5.0
LEAST_INTERVAL_SECONDS = 0.05
RETRY_FIRST_SECONDS, RETRY_CAP_SECONDS = 0.25, 5.0
REGISTER_TIMEOUT_SECONDS = 30.0
GATHER_CAP_SECONDS = 0.1
TARBALL_BUFFER_BYTES = 1 << 22  # the network goes on while a thread takes what came


class HostLink:
    """The only code of a runner that calls the host."""

    def __init__(
        self, bench: Bench, workloads: Workloads, vitals: Vitals, peer: Peer, tls_fingerprint: str = ""
    ) -> None:
        self._bench, self._workloads, self._vitals, self._peer = bench, workloads, vitals, peer
        self._tls_fingerprint = tls_fingerprint
        self._url = ""
        self._instance, self._sequence = secrets.token_hex(8), 0
        self._interval_seconds = FIRST_INTERVAL_SECONDS
        self._heartbeat_due = False
        self._welcomed = Wake()
        self._introduced_with: EngineInfo | None = None
        self._failures = 0
        self.joined = False

    def tarball(self, tarball: Tarball, offset: int) -> AbstractAsyncContextManager[Any]:
        """The open answer with a tarball's bytes from there on; raises RiverError."""
        asked = FetchTarball(hostname=self._bench.hostname, stem=tarball.stem, digest=tarball.digest, offset=offset)
        return self._peer.stream(docker_api.TARBALL_FETCH, asked, TARBALL_BUFFER_BYTES)

    async def keep(self, url: str) -> None:
        """Talk with the host for ever; it reaches this runner at `url`."""
        self._url = url
        while True:
            if not self.joined or self._introduced_with != self._bench.slot.info:
                await self._try(self._register)
                continue
            await self._bench.changed.wait()
            self._bench.changed.clear()
            began = self._bench.clock.monotonic()
            await self._try(self._heartbeat if self._heartbeat_due else self._report)
            # Under load, changes gather while at most half of the time goes into telling them.
            took = self._bench.clock.monotonic() - began
            await self._bench.clock.sleep(min(took, GATHER_CAP_SECONDS))

    def move(self, url: str) -> None:
        """From now on the host reaches this runner at `url`: it must be told."""
        if url != self._url:
            log.info("is reached elsewhere url=%s", url)
            self._url, self.joined = url, False
            self._bench.door.url = url  # where containers that start from now on dial
            self._bench.changed.set()

    async def keep_pulse(self) -> None:
        """Have a heartbeat sent when the host has said at which pace it wants them, and then once per interval."""
        await self._welcomed.wait()
        while True:
            self._heartbeat_due = True
            self._bench.changed.set()
            await self._bench.clock.sleep(self._interval_seconds)

    async def _try(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Tell the host something; when that fails, have it told again a little later."""
        try:
            await tell()
        except NotFound as unknown:
            log.warning("the host does not know this node, will join again error=%s", unknown)
            self.joined = False
            await self._pause()
        except RiverError as failed:
            if self._failures == 0:
                log.warning("the host cannot be told error=%s", failed)
            self._bench.changed.set()
            await self._pause()
        else:
            if self._failures:
                log.info("the host answers again after_tries=%d", self._failures)
            self._failures = 0

    async def _pause(self) -> None:
        longest = min(RETRY_CAP_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        await self._bench.clock.sleep(longest * random.uniform(0.5, 1.0))

    async def _register(self) -> None:
        info = self._bench.slot.info
        request = Register(
            hostname=self._bench.hostname,
            url=self._url,
            tls_fingerprint=self._tls_fingerprint,
            version=__version__,
            engine=(info.name if info else self._bench.settings.engine)[:32],
            engine_version=(info.version if info else "")[:64],
            machine=await self._vitals.machine(),
            clock=self._bench.clock.now(),
            report=self._new_report(),
            overlay=self._bench.overlay.wish(self._bench.settings.host_address),
            warnings=self._vitals.warnings(self._workloads),
        )
        welcome = await self._peer.call(host_api.NODE_REGISTER, request, REGISTER_TIMEOUT_SECONDS)
        await self._bench.overlay.learn(welcome.overlay)
        await self._bench.cluster.learn(welcome.cluster_id, self._workloads.holds_any)
        self._interval_seconds = max(LEAST_INTERVAL_SECONDS, welcome.heartbeat_interval_seconds)
        self._introduced_with, self.joined = info, True
        self._welcomed.set()
        log.info("joined host=%s cluster=%s url=%s", welcome.version, welcome.cluster_id, self._url)
        self._take(welcome.acknowledged)

    async def _heartbeat(self) -> None:
        await self._workloads.measure()
        samples = self._vitals.unsent()
        request = Heartbeat(
            hostname=self._bench.hostname,
            clock=self._bench.clock.now(),
            metrics=self._vitals.metrics,
            samples=samples,
            report=self._new_report(),
            overlay=self._bench.overlay.news(self._bench.settings.host_address),
            warnings=self._vitals.warnings(self._workloads),
        )
        answer = await self._peer.call(host_api.NODE_HEARTBEAT, request)
        self._heartbeat_due = False
        self._vitals.arrived(samples)
        self._take(answer)
        await self._bench.overlay.learn(answer.overlay)

    async def _report(self) -> None:
        request = Changed(hostname=self._bench.hostname, report=self._new_report())
        self._take(await self._peer.call(host_api.NODE_REPORT, request))

    def _new_report(self) -> Report:
        self._sequence += 1
        return Report(
            instance=self._instance,
            sequence=self._sequence,
            workloads=self._workloads.report(),
            store=self._bench.store_name,
        )

    def _take(self, answer: Acknowledged) -> None:
        self._workloads.take(answer)
