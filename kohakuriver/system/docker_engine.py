"""The docker engine: workloads as containers of the Docker daemon on this node.

Docker makes, starts, freezes and removes them. What they write and how they end is told by their own first process
(`container_records`), which needs no daemon for it.
"""

import asyncio
import errno
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.execution import ExecSession, ExecSpec, Inside
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.container_record import Record, together
from kohakuriver.system.container_records import STAND_IN_FOR_KILL, Records, key_of_file
from kohakuriver.system.container_shim import end_shim
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_containers import Containers
from kohakuriver.system.docker_errors import told_as
from kohakuriver.system.docker_events import EventStream
from kohakuriver.system.docker_exec import begin_exec, inside
from kohakuriver.system.docker_images import Images
from kohakuriver.system.docker_root import open_root
from kohakuriver.system.docker_snapshots import DockerWorkspaces
from kohakuriver.system.docker_spec import Owner, is_of_vps
from kohakuriver.system.engine import ContainerSpec, EngineInfo, Observed, Phase, WorkloadKey
from kohakuriver.system.hanging_up import end_strays
from kohakuriver.system.inotify import Inotify
from kohakuriver.system.loops import Loops, Wake
from kohakuriver.system.rooted import Root

log = logging.getLogger(__name__)
DEFAULT_SOCKET = "/var/run/docker.sock"
OPEN_SECONDS = 15.0
BEGIN_SECONDS, LOOK_AGAIN_SECONDS = 60.0, 1.0
NOTICE_SECONDS, NOTICE_LOOK_SECONDS = 10.0, 0.02
NO_BEGIN = "the first process of its container does not begin; is the state directory mounted noexec?"


class DockerEngine:
    """The containers of one cluster on one node; their records are kept in `state`, `socket` is the daemon's."""

    def __init__(
        self, cluster: str, node: str, state: Path, socket: str = DEFAULT_SOCKET, clock: Clock | None = None
    ) -> None:
        clock, owner = clock or SystemClock(), Owner(cluster, node)
        self._clock = clock
        self._client = DockerClient(socket)
        self._images = Images(self._client)
        self._records = Records(state)
        self._containers = Containers(self._client, owner, clock, self._records)
        self._mark = f"{cluster}/{node}"
        self.workspaces = DockerWorkspaces(self._client, self._containers, owner, self._begin_again)
        self._events = EventStream(self._client, owner, clock, self._tell_of_all)
        self._loops = Loops(clock)
        self._ears: Inotify | None = None
        self._starting: dict[WorkloadKey, Wake] = {}
        self._well_started: set[WorkloadKey] = set()
        self._vps: set[WorkloadKey] = set()
        self._fresh: set[WorkloadKey] = set()

    @property
    def images(self) -> Images:
        """Hands for the images of the daemon."""
        return self._images

    async def open(self) -> None:
        """Connect and begin to listen; raises EngineFailed when the daemon does not answer."""
        await self._client.open()
        await end_strays(self._mark)
        await self._client.run(Pool.FILES, self._records.open)
        self._listen_to_records()
        with suppress(ValueError):  # we listen already
            self._loops.run("docker events", self._events.run)
        try:
            await asyncio.wait_for(self._events.connected.wait(), OPEN_SECONDS)
        except TimeoutError:
            raise EngineFailed("the Docker daemon gives no events", retry_elsewhere=True) from None

    async def close(self) -> None:
        """Let go of everything of ours; containers go on, and so do their records and output."""
        self._events.close()
        if self._ears is not None:
            asyncio.get_running_loop().remove_reader(self._ears.descriptor)
            self._ears.close()
            self._ears = None
        await self._loops.stop()
        await self._client.close()

    async def describe(self) -> EngineInfo:
        """Ask the daemon who it is; raises EngineFailed when it does not answer."""
        with told_as("cannot ask Docker who it is"):
            facts = await self._client.look("/info")
        return EngineInfo(
            name="docker",
            version=str(facts["ServerVersion"]),
            limits_memory=bool(facts["MemoryLimit"]),
            limits_cpu=bool(facts["CpuCfsQuota"]),
            gpus="nvidia" in facts["Runtimes"],
        )

    async def ensure_image(self, image: str) -> None:
        """Return when the image is on the node, pulling it if a registry may have it; raises EngineFailed."""
        await self._images.ensure(image)

    async def create(self, spec: ContainerSpec) -> None:
        """Make the container; one of an older attempt under the same name goes first, whichever node made it."""
        before = await self._client.run(Pool.FILES, lambda: self._records.prepare(spec))
        if before is not None and before.is_barred:
            await self._take_away(spec.key)
        if before is None or before.is_barred:
            self._fresh.add(spec.key)
        self._notice(spec)
        displaced = await self._containers.create(spec)
        if displaced is not None:
            await self._client.run(Pool.FILES, lambda: self._bury(displaced))

    async def start(self, spec: ContainerSpec) -> None:
        """Start it and return when its program runs; no program is ever run twice. Raises EngineFailed, NotFound."""
        record = None if spec.key in self._fresh else await self._look(spec.key)
        if record is not None and record.is_barred:
            await self.create(spec)
        self._fresh.discard(spec.key)
        if record is None or not record.is_claimed:
            record = await self._begin(spec.key)
        if spec.key not in self._vps:  # which are started again, and then open them again
            await self._client.run(Pool.FILES, lambda: self._records.seal(spec))
        if record.errno == errno.ENOENT:
            raise EngineFailed(f"image {spec.image} has no program {spec.command[0]!r}")
        if record.errno:
            raise EngineFailed(f"{spec.command[0]!r} in image {spec.image} cannot be run: {os.strerror(record.errno)}")

    async def adopt(self, spec: ContainerSpec) -> None:
        """Nothing is to be done: output and end are put down without us. Raises NotFound, EngineFailed."""
        self._notice(spec)
        await self.observe(spec.key)

    async def signal(self, key: WorkloadKey, number: int) -> None:
        """Send a signal to the program; raises NotFound, EngineFailed."""
        if await self._look(key) is None:
            return await self._containers.signal(key, number)
        sent = STAND_IN_FOR_KILL if number == signal.SIGKILL else number
        if not await self._client.run(Pool.FILES, lambda: self._records.signal(key, sent)):
            await self._containers.signal(key, sent)
        if number == signal.SIGKILL:
            with suppress(Conflict):  # it has ended; a frozen one has to thaw for that
                await self._containers.resume(key)

    async def pause(self, key: WorkloadKey) -> None:
        """Freeze it; raises Conflict when it does not run, NotFound, EngineFailed."""
        await self._containers.pause(key)

    async def resume(self, key: WorkloadKey) -> None:
        """Thaw it; raises Conflict when it does not run, NotFound, EngineFailed."""
        await self._containers.resume(key)

    async def observe(self, key: WorkloadKey) -> Observed:
        """Look at one; raises NotFound, EngineFailed."""
        record = await self._look(key)
        if record is not None and record.ended_at is not None and key not in self._vps:
            return together(Observed(key, Phase.EXITED), record)  # there is nothing that Docker could add
        try:
            seen = await self._containers.observe(key)
        except NotFound:
            if record is None or record.is_claimed:
                raise
            return Observed(key, Phase.CREATED)  # who made it anew was cut off in the middle
        return together(seen, await self._look(key))  # what Docker saw is older than what we look at now

    async def observe_all(self) -> list[Observed]:
        """Look at all of ours; raises EngineFailed."""
        seen = await self._containers.list()
        records = await self._client.run(Pool.FILES, lambda: [self._records.look(each.key) for each in seen])
        judged = [await self._judged(each, record) for each, record in zip(seen, records, strict=True)]
        return [each for each in judged if each is not None]

    async def finish_logs(self, spec: ContainerSpec) -> None:
        """Return when the output of an exited container is on disk; raises EngineFailed when it is not complete."""
        await self._client.run(Pool.FILES, lambda: self._records.sync(spec))

    async def remove(self, key: WorkloadKey) -> None:
        """Take it away with its volumes, running or not; raises EngineFailed."""
        await self._client.run(Pool.FILES, lambda: self._records.end(key))
        await self._take_away(key)
        await self._client.run(Pool.FILES, lambda: self._records.forget(key))

    async def exec(self, key: WorkloadKey, spec: ExecSpec) -> ExecSession:
        """Start another process in it; raises NotFound, Conflict when it does not run, EngineFailed."""
        return await begin_exec(self._client, await self._containers.id_of(key), spec, self._mark)

    async def inside(self, key: WorkloadKey) -> Inside:
        """Its first process; raises NotFound, Conflict when it does not run, EngineFailed."""
        return await inside(self._client, await self._containers.id_of(key))

    async def open_root(self, key: WorkloadKey, writable: bool) -> Root:
        """Its files, also when it has exited; raises NotFound, Conflict, EngineFailed for other storage drivers."""
        await self._let_docker_notice(key)
        return await open_root(self._client, await self._containers.id_of(key), writable)

    def events(self) -> AsyncIterator[WorkloadKey]:
        """Keys about which something changed since the engine was opened; for one listener."""
        return self._events.changes.listen()

    def _notice(self, spec: ContainerSpec) -> None:
        if is_of_vps(spec.labels):
            self._vps.add(spec.key)

    async def _take_away(self, key: WorkloadKey) -> None:
        """Remove a container, and what a start of it that was cut off, before us perhaps, left of it."""
        with suppress(NotFound):
            container_id = await self._containers.id_of(key)
            await self._containers.remove(key)
            if key not in self._well_started:
                await self._client.run(Pool.FILES, lambda: end_shim(container_id))
        self._well_started.discard(key)
        self._vps.discard(key)
        self._fresh.discard(key)

    async def _begin(self, key: WorkloadKey) -> Record:
        """The record of a program that runs or cannot be run; raises EngineFailed, and then it never will as it is."""
        news = self._starting[key] = Wake()
        try:
            await self._containers.start(key)
            self._well_started.add(key)
            return await self._settled(key, news)
        except EngineFailed:
            if await self._client.run(Pool.FILES, lambda: self._records.bar(key)):
                raise
            return await self._settled(key, news)  # Docker did not live to say so, but it runs
        finally:
            del self._starting[key]

    async def _begin_again(self, key: WorkloadKey) -> None:
        """Run the program of a container that has exited once more; a no-op while it runs."""
        record = await self._look(key)
        if record is None or not record.pid:
            await self._client.run(Pool.FILES, lambda: self._records.renew(key))
            await self._begin(key)

    async def _settled(self, key: WorkloadKey, news: Wake) -> Record:
        """The record as soon as it says whether the program runs; raises EngineFailed when it never will."""
        give_up_at = self._clock.monotonic() + BEGIN_SECONDS
        while True:
            news.clear()
            record = await self._look(key)
            if record is not None and record.is_settled:
                return record
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), LOOK_AGAIN_SECONDS)
                continue
            if self._clock.monotonic() > give_up_at or await self._has_ended_unclaimed(key):
                raise EngineFailed(NO_BEGIN, retry_elsewhere=True)

    async def _has_ended_unclaimed(self, key: WorkloadKey) -> bool:
        try:
            has_ended = (await self._containers.observe(key)).exit is not None
        except EngineFailed:
            return False  # the daemon is away
        record = await self._look(key)
        return has_ended and (record is None or not record.is_claimed)

    async def _let_docker_notice(self, key: WorkloadKey) -> None:
        """Wait, not for ever, until Docker knows of an end that we know: only then the files lie still."""
        record = await self._look(key)
        give_up_at = self._clock.monotonic() + NOTICE_SECONDS
        while record is not None and record.ended_at is not None and self._clock.monotonic() < give_up_at:
            if (await self._containers.observe(key)).phase is not Phase.RUNNING:
                return
            await self._clock.sleep(NOTICE_LOOK_SECONDS)

    async def _judged(self, listed: Observed, record: Record | None) -> Observed | None:
        """What is true of a container; None when it is not there any more."""
        if record is not None and (record.pid or record.ended_at is not None or not record.is_claimed):
            return together(listed, record)
        try:
            seen = await self._containers.observe(listed.key)
        except NotFound:
            return None
        return together(seen, record)

    async def _look(self, key: WorkloadKey) -> Record | None:
        return await self._client.run(Pool.FILES, lambda: self._records.look(key))

    def _bury(self, key: WorkloadKey) -> None:
        self._records.end(key)
        self._records.forget(key)

    def _listen_to_records(self) -> None:
        """Hear at once what Docker's events tell a tenth of a second later; without that, those are enough."""
        if self._ears is None:
            try:
                self._ears = Inotify(self._records.directory)
            except OSError as error:
                log.warning("no inotify for the records of containers error=%s", error)
            else:
                asyncio.get_running_loop().add_reader(self._ears.descriptor, self._hear, self._ears)

    def _hear(self, ears: Inotify) -> None:
        for key in filter(None, map(key_of_file, ears.read())):
            if key in self._starting:
                self._starting[key].set()
            self._events.changes.tell(key)

    async def _tell_of_all(self) -> None:
        """Docker was away: anything may have changed, and it may have forgotten whatever it was about."""
        self._well_started.clear()
        for seen in await self._containers.list():
            self._events.changes.tell(seen.key)
