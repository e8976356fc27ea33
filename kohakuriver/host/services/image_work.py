"""Does the host's long work on environments, one job after the other; each may be cut anywhere and is then done again."""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from kohakuriver.host.services.tarballs import Tarballs
from kohakuriver.host.store import image_jobs
from kohakuriver.model.docker_api import Job, JobKind, JobState
from kohakuriver.model.errors import EngineFailed, RiverError
from kohakuriver.model.image import IMAGE_PREFIX, environment_of, image_name, show_progress
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.units import parse_bytes, rfc3339, show_bytes, unix_seconds
from kohakuriver.system.clock import Clock
from kohakuriver.system.docker_archives import Stopped, Transfer, load_image, save_image
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_environments import EnvironmentContainers, EnvironmentSpec, no_docker
from kohakuriver.system.docker_errors import told_as
from kohakuriver.system.docker_images import Images
from kohakuriver.system.image_archive import BadArchive, Checked, Limits, check_archive
from kohakuriver.system.image_hands import Login
from kohakuriver.system.loops import Wake
from kohakuriver.system.sqlite import Database

log = logging.getLogger(__name__)
T = TypeVar("T")
TARBALL_SUFFIX = ".tar"  # of a job's source: no image of a registry is called so


@dataclass(slots=True)
class ImageWork:
    """The worker and its tools; what it does just now, and how far it is, stand in `under_way`."""

    settings: HostSettings
    db: Database
    clock: Clock
    client: DockerClient
    containers: EnvironmentContainers
    images: Images
    tarballs: Tarballs
    wake: Wake = field(default_factory=Wake)
    under_way: "tuple[Job, Transfer, float] | None" = None
    told: tuple[int, int, str] = (0, 0, "")  # of which job how far it was told to be
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "image-work"))

    def has_docker(self) -> bool:
        """Whether there may be a daemon."""
        return os.path.exists(self.settings.docker_socket)

    async def connect(self) -> None:
        """Return when the daemon can be asked; raises EngineFailed, which says what needs it."""
        try:
            if not self.has_docker():
                raise EngineFailed(f"there is none at {self.settings.docker_socket}")
            await self.client.open()
        except EngineFailed as why:
            raise no_docker(why) from None

    async def close(self) -> None:
        """Give up what is under way; the next host does it again."""
        if self.under_way is not None:
            self.under_way[1].stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self.client.close()

    async def keep_working(self) -> None:
        """Do what is wanted, for ever."""
        while True:
            self.wake.clear()
            job = await self.db.read(image_jobs.next_one)
            if job is None:
                await self.wake.wait()
            else:
                await self._do(job)

    def with_progress(self, job: Job) -> Job:
        """The job as it is known just now."""
        if self.under_way is None or self.under_way[0].job_id != job.job_id or job.ended_at is not None:
            return job
        _, transfer, began = self.under_way
        done, total = transfer.done_bytes, transfer.total_bytes
        text = show_progress(transfer.step, done, total, self.clock.monotonic() - began) if done else transfer.step
        return replace(job, state=JobState.RUNNING, message=text, done_bytes=done, total_bytes=total)

    async def tell_progress(self) -> None:
        """Write down how far the work under way is, if it has come further."""
        if self.under_way is None:
            return
        far = self.under_way[0].job_id, self.under_way[1].done_bytes, self.under_way[1].step
        if far != self.told:
            self.told = far
            job = self.with_progress(self.under_way[0])
            await self.db.write(lambda tx: image_jobs.save(tx, job))

    async def _do(self, job: Job) -> None:
        transfer = Transfer()
        self.under_way = job, transfer, self.clock.monotonic()
        log.info("image job begins job=%s kind=%s environment=%s", job.job_id, job.kind, job.environment)
        try:
            await self.db.write(lambda tx: image_jobs.save(tx, replace(job, state=JobState.RUNNING)))
            await self.connect()
            work = self._create if job.kind is JobKind.CREATE else self._make_tarball
            state, message = JobState.DONE, await work(job, transfer)
        except (RiverError, Stopped, OSError) as why:
            state, message = JobState.FAILED, str(why) or "given up"
            log.warning("image job failed job=%s environment=%s error=%s", job.job_id, job.environment, why)
        finally:
            transfer.stop()
            self.under_way = None
        over = replace(
            job,
            state=state,
            message=message,
            done_bytes=transfer.done_bytes,
            total_bytes=transfer.total_bytes,
            ended_at=rfc3339(self.clock.now()),
        )
        await self.db.write(lambda tx: image_jobs.save(tx, over))

    async def _create(self, job: Job, transfer: Transfer) -> str:
        image = job.source
        if image.endswith(TARBALL_SUFFIX):
            image = await self._import(image.removesuffix(TARBALL_SUFFIX), transfer)
        else:
            transfer.step = f"pulling {image}"
            login = await self.db.read(lambda tx: image_jobs.login_of(tx, job.job_id))
            await self.images.ensure(image, Login.of(login), transfer)
        shared = self.settings.shared_dir
        spec = EnvironmentSpec(
            name=job.environment,
            image=image,
            cpu_limit=self.settings.env_container_cpu_limit,
            memory_limit_bytes=parse_bytes(self.settings.env_container_mem_limit or "0"),
            shared_data=str(Path(shared).expanduser() / "shared_data") if shared else "",
        )
        await self.containers.create(spec)
        return f"environment {job.environment} runs"

    async def _import(self, stem: str, transfer: Transfer) -> str:
        """Load a tarball that lies ready; the image it holds.

        An environment's is from now on a tarball that nodes get; any other is what `docker save` made elsewhere.
        """
        transfer.step = "checking"
        path, limits = await self._in_thread(lambda: self.tarballs.lying(stem)), Limits(self.settings.image_limit_bytes)
        try:
            checked = await self._in_thread(lambda: check_archive(path, None, limits))
        except BadArchive as bad:
            raise EngineFailed(f"{path.name} is refused: {bad}") from None
        if checked.image == image_name(environment_of(stem)[0]):
            await self._in_thread(lambda: self.tarballs.adopt(stem, transfer))
        else:
            await self._refuse_to_replace(checked)
        transfer.step, transfer.total_bytes = "loading", (await self._in_thread(path.stat)).st_size
        with told_as(f"cannot load {path.name}"):
            await self._in_thread(lambda: load_image(self.settings.docker_socket, path, transfer))
        return checked.image

    async def _refuse_to_replace(self, checked: Checked) -> None:
        """What comes from elsewhere takes no name away; raises EngineFailed."""
        if checked.image.startswith(IMAGE_PREFIX):
            raise EngineFailed(f"it holds {checked.image}, so its file must be called after that environment")
        there = await self.images.find(checked.image)
        if there is not None and not there.id.endswith(checked.config_digest or " "):
            raise EngineFailed(f"it holds {checked.image}, and this host has another image of that name: rename one")

    async def _make_tarball(self, job: Job, transfer: Transfer) -> str:
        stem = f"{job.environment}-{int(unix_seconds(job.created_at))}"
        transfer.step = "committing"
        before = await self.images.find(image_name(job.environment))
        await self.containers.commit(job.environment, stem)
        made = await self.images.find(image_name(job.environment))
        size_bytes, most_bytes = made.size_bytes if made else 0, self.settings.image_limit_bytes
        if size_bytes > most_bytes:  # before it fills the storage that all share
            raise EngineFailed(
                f"environment {job.environment} takes {show_bytes(size_bytes)}; "
                f"no node loads more than {show_bytes(most_bytes)} (IMAGE_LIMIT_BYTES)"
            )
        transfer.step, transfer.total_bytes = "saving", size_bytes
        part = await self._in_thread(lambda: self.tarballs.new_part(stem))
        with told_as(f"cannot save environment {job.environment}"):
            digest = await self._in_thread(
                lambda: save_image(self.settings.docker_socket, image_name(job.environment), part, transfer)
            )
        await self._in_thread(lambda: self.tarballs.finish(part, stem, digest))
        await self._in_thread(lambda: self.tarballs.prune(job.environment, self.settings.tarballs_kept))
        if before is not None:
            await self.images.drop_superseded(before.id, image_name(job.environment))
        return f"{stem} ({show_bytes(transfer.done_bytes)})"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
