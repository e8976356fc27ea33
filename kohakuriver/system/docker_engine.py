"""The docker engine: workloads as containers of the Docker daemon on this node."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

from kohakuriver.model.errors import EngineFailed, TooMany, Unavailable
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.docker_capture import Capture
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_containers import Containers
from kohakuriver.system.docker_errors import told_as
from kohakuriver.system.docker_events import EventStream
from kohakuriver.system.docker_exec import begin_exec, inside
from kohakuriver.system.docker_images import Images
from kohakuriver.system.docker_orphans import Fate, daemon_started_at, end_orphan, find_orphan
from kohakuriver.system.docker_pipes import PipeFinder, Watched, save_last_words
from kohakuriver.system.docker_root import open_root
from kohakuriver.system.docker_snapshots import DockerWorkspaces
from kohakuriver.system.docker_spec import Owner
from kohakuriver.system.engine import ContainerSpec, EngineInfo, Observed, Phase, WorkloadKey
from kohakuriver.system.engine_exec import ExecSession, ExecSpec, Inside
from kohakuriver.system.hanging_up import end_strays
from kohakuriver.system.loops import Loops
from kohakuriver.system.rooted import Root

DEFAULT_SOCKET = "/var/run/docker.sock"
OPEN_SECONDS = 15.0
MAX_CAPTURES = 100_000
# What a daemon says of a container that its predecessor started, and whose end nobody wrote down.
LOST_EXIT_CODE = 255
ORPHAN_SECONDS = 0.3  # what a shim was about to do when the daemon died, it has done by then
DIED_STARTING = "Docker died while it was starting this and lost its end; it had begun, so it is not run again"


class DockerEngine:
    """The containers of one cluster on one node; `socket` is the path of the daemon's unix socket."""

    def __init__(self, cluster: str, node: str, socket: str = DEFAULT_SOCKET, clock: Clock | None = None) -> None:
        clock, owner = clock or SystemClock(), Owner(cluster, node)
        self._clock = clock
        self._client = DockerClient(socket, clock)
        self._images = Images(self._client)
        self._containers = Containers(self._client, owner, clock)
        self._mark = f"{cluster}/{node}"
        self.workspaces = DockerWorkspaces(self._client, self._containers, owner)
        self._events = EventStream(self._client, owner, clock, self)
        self._loops = Loops(clock, spawn_limit=MAX_CAPTURES)
        self._captures: dict[WorkloadKey, Capture] = {}
        self._pipes = PipeFinder()
        self._daemon_is_back = threading.Event()
        self._begun: set[WorkloadKey] = set()

    @property
    def images(self) -> Images:
        """Hands for the images of the daemon."""
        return self._images

    async def open(self) -> None:
        """Connect and begin to listen; raises EngineFailed when the daemon does not answer."""
        await self._client.open()
        await end_strays(self._mark)
        with suppress(ValueError):  # we listen already
            self._loops.run("docker events", self._events.run)
        try:
            await asyncio.wait_for(self._events.connected.wait(), OPEN_SECONDS)
        except TimeoutError:
            raise EngineFailed("the Docker daemon gives no events", retry_elsewhere=True) from None

    async def close(self) -> None:
        """Let go of everything of ours; containers go on, and what they write meanwhile stays in Docker's log."""
        self._events.close()
        self._daemon_is_back.set()
        await self._loops.stop()
        for key in list(self._captures):
            await self._drop_capture(key)
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
        displaced = await self._containers.create(spec)
        if displaced is not None:
            await self._drop_capture(displaced)

    async def start(self, spec: ContainerSpec) -> None:
        """Start it and copy its output; no container is ever started twice. Raises EngineFailed, NotFound."""
        container_id = await self._containers.id_of(spec.key)
        if not self._containers.take_fresh(spec.key):
            seen = await self._containers.observe(spec.key)
            if seen.phase is not Phase.CREATED:
                return await self.adopt(spec)
            await self._refuse_second_run(spec.key, container_id)
        await self._images.check_program(spec, container_id)
        await self._attach(spec, container_id)
        try:
            await self._containers.start(spec.key)
        except EngineFailed as failed:
            if failed.retry_elsewhere:
                await self._notice_begun(spec.key, container_id)
            raise
        await self._captures[spec.key].hold_pipes(self._pipes)

    async def adopt(self, spec: ContainerSpec) -> None:
        """Go on copying the output of a container that this object did not start; raises NotFound, EngineFailed."""
        seen = await self._containers.observe(spec.key)
        if spec.key in self._captures or seen.phase is Phase.CREATED:
            return
        capture = await self._new_capture(spec)
        if seen.phase is not Phase.EXITED:
            self._follow(capture)
            await capture.hold_pipes(self._pipes)

    async def signal(self, key: WorkloadKey, number: int) -> None:
        """Send a signal to the init of the container, which hands it on; raises NotFound, EngineFailed."""
        await self._containers.signal(key, number)

    async def pause(self, key: WorkloadKey) -> None:
        """Freeze it; raises Conflict when it does not run, NotFound, EngineFailed."""
        await self._containers.pause(key)

    async def resume(self, key: WorkloadKey) -> None:
        """Thaw it; raises Conflict when it does not run, NotFound, EngineFailed."""
        await self._containers.resume(key)

    async def observe(self, key: WorkloadKey) -> Observed:
        """Look at one; raises NotFound, EngineFailed."""
        seen = await self._containers.observe(key)
        if seen.exit is None or seen.exit.code != LOST_EXIT_CODE or seen.finished_at is None:
            return seen
        born = await self._client.run(Pool.FILES, lambda: daemon_started_at(self._client.socket))
        was_lost = born is not None and (seen.started_at or born) < born - 1 <= seen.finished_at
        return replace(seen, exit=replace(seen.exit, code=None)) if was_lost else seen

    async def observe_all(self) -> list[Observed]:
        """Look at all of ours; raises EngineFailed."""
        return await self._containers.observe_all()

    async def finish_logs(self, spec: ContainerSpec) -> None:
        """Return when the files hold the whole output of an exited container; raises NotFound, EngineFailed."""
        capture = self._captures.get(spec.key) or await self._new_capture(spec)
        with told_as("cannot read Docker's log"):
            await capture.finish()

    async def remove(self, key: WorkloadKey) -> None:
        """Take it away with its volumes, running or not; raises EngineFailed."""
        await self._containers.remove(key)
        await self._drop_capture(key)
        self._begun.discard(key)

    async def exec(self, key: WorkloadKey, spec: ExecSpec) -> ExecSession:
        """Start another process in it; raises NotFound, Conflict when it does not run, EngineFailed."""
        return await begin_exec(self._client, await self._containers.id_of(key), spec, self._mark)

    async def inside(self, key: WorkloadKey) -> Inside:
        """Its first process; raises NotFound, Conflict when it does not run, EngineFailed."""
        return await inside(self._client, await self._containers.id_of(key))

    async def open_root(self, key: WorkloadKey, writable: bool) -> Root:
        """Its files, also when it has exited; raises NotFound, Conflict, EngineFailed for other storage drivers."""
        return await open_root(self._client, await self._containers.id_of(key), writable)

    def events(self) -> AsyncIterator[WorkloadKey]:
        """Keys about which something changed since the engine was opened; for one listener."""
        return self._events.changes.listen()

    def died(self, at: float) -> None:
        """The daemon died at that moment (unix seconds): whoever copies output must know."""
        captures = list(self._captures.values())
        for capture in captures:
            capture.lose(at)
        self._daemon_is_back = until = threading.Event()
        with suppress(TooMany, Unavailable):
            self._loops.spawn("keep where the daemon's log breaks off", _keep_anchors(captures))
            self._loops.spawn("last words", self._save_last_words(captures, until))

    async def revived(self) -> None:
        """The daemon is back: anything may have changed, and output that was copied live is in its log now."""
        self._daemon_is_back.set()
        for key in await self._containers.keys():
            self._events.changes.tell(key)
        for capture in self._captures.values():
            if capture.needs_follower:
                self._follow(capture)

    async def _notice_begun(self, key: WorkloadKey, container_id: str) -> None:
        """A start failed for no reason of its own: remember if the program runs all the same."""
        await self._clock.sleep(ORPHAN_SECONDS)
        orphan = await self._client.run(Pool.FILES, lambda: find_orphan(container_id))
        if orphan.fate is Fate.BEGUN:
            self._begun.add(key)

    async def _refuse_second_run(self, key: WorkloadKey, container_id: str) -> None:
        """The daemon says that it was never started; believe the machine. Raises EngineFailed when it was."""
        orphan = await self._client.run(Pool.FILES, lambda: find_orphan(container_id))
        if orphan.fate is not Fate.ABSENT:
            await self._client.run(Pool.FILES, lambda: end_orphan(orphan))
        if orphan.fate is Fate.BEGUN or key in self._begun:
            self._begun.add(key)
            raise EngineFailed(DIED_STARTING)

    async def _save_last_words(self, captures: Sequence[Capture], until: threading.Event) -> None:
        watched = [Watched(each.pipes, each.save_last_words) for each in captures if each.pipes is not None]
        await self._client.run(Pool.LAST_WORDS, lambda: save_last_words(watched, until))

    async def _attach(self, spec: ContainerSpec, container_id: str) -> None:
        await self._drop_capture(spec.key)
        capture = await self._new_capture(spec)
        with told_as(f"cannot attach to {spec.name}"):
            await capture.attach()
        capture.live = self._loops.spawn(f"output of {spec.name}", capture.copy())

    async def _new_capture(self, spec: ContainerSpec) -> Capture:
        capture = Capture(self._client, self._events, self._clock, spec)
        await capture.open(await self._containers.id_of(spec.key))
        self._captures[spec.key] = capture
        return capture

    def _follow(self, capture: Capture) -> None:
        capture.live = self._loops.spawn(f"output of {capture.spec.name}", capture.follow())

    async def _drop_capture(self, key: WorkloadKey) -> None:
        if (capture := self._captures.pop(key, None)) is not None:
            await capture.close()


async def _keep_anchors(captures: Sequence[Capture]) -> None:
    await asyncio.gather(*(capture.keep_anchor() for capture in captures))
