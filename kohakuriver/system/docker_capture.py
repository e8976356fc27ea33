"""Copy the output of one container into its log files: live while we can, out of Docker's log when we were away."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused
from kohakuriver.system.docker_events import EventStream
from kohakuriver.system.docker_frames import STDERR, STDOUT, Frames
from kohakuriver.system.docker_output import Output
from kohakuriver.system.docker_pipes import PipeFinder, Pipes, drop_last_words, keep_last_words, last_words
from kohakuriver.system.docker_recovery import Anchor, Recovery, docker_time, drop_anchor, load_anchor, save_anchor
from kohakuriver.system.docker_stream import RawStream, attach, get, reading
from kohakuriver.system.engine import ContainerSpec

log = logging.getLogger(__name__)
T = TypeVar("T")
AGAIN_SECONDS = 1.0
# How long the end of an attached stream may keep us waiting after the container's end; Docker's log has it all.
LIVE_END_SECONDS = 20.0


class Capture:
    """One container's output on its way to the files in `spec.log_directory`."""

    def __init__(self, client: DockerClient, events: EventStream, clock: Clock, spec: ContainerSpec) -> None:
        self.spec = spec
        self.live: asyncio.Task[None] | None = None
        self.pipes: Pipes | None = None
        self._client = client
        self._events = events
        self._clock = clock
        self._container_id = ""
        self._stream: RawStream | None = None
        self._life = 0
        self._ended_at: float | None = None
        self._is_complete = False
        self._output: Output
        self._anchor = Anchor()

    async def open(self, container_id: str) -> None:
        """Open the files and find where they stand; raises EngineFailed when the disk does not let us."""
        spec, self._container_id = self.spec, container_id
        self._output = await self._write(lambda: Output(spec.log_directory, spec.log_limit_bytes))
        self._anchor = await self._write(lambda: load_anchor(spec.log_directory))

    async def attach(self) -> None:
        """Connect to a container that has not started; raises ApiRefused and EngineFailed."""
        self._anchor = Anchor()  # a daemon that died before the start has lost nothing
        await self._write(lambda: drop_anchor(self.spec.log_directory))
        self._life = self._events.life
        self._stream = await attach(self._client.socket, self._container_id)

    async def copy(self) -> None:
        """Copy the attached stream to its end; when that was the daemon's, go on with its log."""
        assert self._stream is not None
        frames = Frames()
        async with reading(self._stream):
            while not self._output.is_full and (data := await self._stream.read()):
                await self._keep_trying(lambda: self._output.append(frames.feed(data)))
        self._ended_at = self._clock.monotonic()
        if self._anchor.lost_at is not None:
            await self.follow()

    async def follow(self) -> None:
        """Copy what Docker's log has and gets, until the container ends; a daemon that goes away is waited for."""
        while not self._output.is_full:
            await self._events.connected.wait()
            life = self._events.life
            with suppress(EngineFailed):
                try:
                    await self._read_log(follow=True)
                    if self._events.life == life and not await self._runs():
                        return
                except ApiRefused:
                    return  # the container is gone
            await self._clock.sleep(AGAIN_SECONDS)

    async def hold_pipes(self, finder: PipeFinder) -> None:
        """Be ready for a daemon that dies before the container ends."""
        self.pipes = await self._client.run(Pool.FILES, lambda: finder.open(self._container_id))

    def save_last_words(self, stream: int, words: bytes) -> None:
        """Keep what no daemon will ever log; for a worker thread."""
        try:
            keep_last_words(self.spec.log_directory, stream, words)
        except OSError as error:
            log.error("last words are lost directory=%s error=%s", self.spec.log_directory, error)

    def lose(self, died_at: float) -> None:
        """The daemon died; what it had in hand is missing in its log."""
        if self._stream is not None and self._anchor == Anchor():
            self._anchor = Anchor(lost_at=died_at)

    async def keep_anchor(self) -> None:
        """Have the loss on disk, for a runner that dies now."""
        with suppress(EngineFailed):
            await self._write(lambda: save_anchor(self.spec.log_directory, self._anchor))

    @property
    def needs_follower(self) -> bool:
        """Whether output may come that nobody copies."""
        return not self._is_complete and self._anchor.lost_at is not None and (self.live is None or self.live.done())

    async def finish(self) -> None:
        """Return when the files hold all of an exited container's output, on disk; raises EngineFailed, ApiRefused."""
        if not self._is_complete:
            await self._end_live()
            if not await self._has_all():
                await self._read_to_end()
            await self._write(self._output.sync)
            await self._write(lambda: _drop_leftovers(self.spec.log_directory))
            self._is_complete = True
            await self._let_go()

    async def close(self) -> None:
        """Let go of it; what was not copied is in Docker's log."""
        if self.live is not None:
            self.live.cancel()
            await asyncio.wait([self.live])
        await self._let_go()

    async def _let_go(self) -> None:
        if self.pipes is not None:
            self.pipes.close()
        await self._write(self._output.close)

    async def _end_live(self) -> None:
        if self.live is None:
            return
        await asyncio.wait([self.live], timeout=LIVE_END_SECONDS)
        self.live.cancel()
        await asyncio.wait([self.live])

    async def _has_all(self) -> bool:
        """Whether the attached stream has ended, and with the container, not with the daemon."""
        if self._output.is_full:
            return True
        return self._ended_at is not None and await self._events.still(self._life, self._ended_at)

    async def _read_to_end(self) -> None:
        life, begun_at = self._events.life, self._clock.monotonic()
        if not self._events.connected.is_set():
            raise EngineFailed("the Docker daemon is away, and with it the rest of the output", retry_elsewhere=True)
        recovery = await self._read_log(follow=False)
        await self._write(lambda: recovery.end(last_words(self.spec.log_directory)))
        await self._insist_on_life(life, begun_at)

    async def _read_log(self, *, follow: bool) -> Recovery:
        if self._anchor.lost_at is not None:
            await self._settle_loss(self._anchor.lost_at)
        return await self._recover(since=docker_time(self._anchor.after), follow=str(int(follow)))

    async def _settle_loss(self, lost_at: float) -> None:
        """Take what the dead daemon did log, and from now on join what its successor logs to that."""
        life, begun_at = self._events.life, self._clock.monotonic()
        recovery = await self._recover(since=docker_time(self._anchor.after), until=docker_time(lost_at))
        await self._write(recovery.pause)
        await self._insist_on_life(life, begun_at)
        held = {stream: file.held_bytes for stream, file in self._output.files.items()}
        self._anchor = Anchor(after=lost_at, stdout=held[STDOUT], stderr=held[STDERR])
        await self.keep_anchor()

    async def _recover(self, **query: str) -> Recovery:
        anchor, loses_line_ends = self._anchor, self._client.loses_line_ends
        recovery = await self._write(lambda: Recovery(self._output, anchor, loses_line_ends))
        asked = urlencode({"stdout": 1, "stderr": 1, "timestamps": 1, **query})
        async with reading(await get(self._client.socket, f"/containers/{self._container_id}/logs?{asked}")) as stream:
            while not self._output.is_full and (data := await stream.read()):
                await self._write(lambda: recovery.feed(data))
        return recovery

    async def _insist_on_life(self, life: int, begun_at: float) -> None:
        if not await self._events.still(life, begun_at):
            raise EngineFailed("the Docker daemon went away while its log was read", retry_elsewhere=True)

    async def _runs(self) -> bool:
        facts = await self._client.look(f"/containers/{self._container_id}/json")
        return bool(facts["State"]["Running"])

    async def _write(self, work: Callable[[], T]) -> T:
        try:
            return await self._client.run(Pool.FILES, work)
        except OSError as error:
            raise disk_failed(self.spec, error) from None

    async def _keep_trying(self, work: Callable[[], None]) -> None:
        """Have output written that we alone hold; a full disk holds up the container in the end."""
        try:
            return await self._client.run(Pool.FILES, work)
        except OSError as error:
            log.warning("output waits for the disk directory=%s error=%s", self.spec.log_directory, error)
        while True:
            await self._clock.sleep(AGAIN_SECONDS)
            with suppress(OSError):
                return await self._client.run(Pool.FILES, self._output.flush)


def _drop_leftovers(directory: Path) -> None:
    drop_anchor(directory)
    drop_last_words(directory)


def disk_failed(spec: ContainerSpec, error: OSError) -> EngineFailed:
    """The log files cannot be written."""
    return EngineFailed(f"cannot write the output to {spec.log_directory}: {error.strerror}", retry_elsewhere=True)
