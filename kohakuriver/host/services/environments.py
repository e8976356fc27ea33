"""Environments on the host: their containers now, and which long work on them is wanted and under way."""

import asyncio
import sqlite3
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.host.services.image_work import ImageWork
from kohakuriver.host.services.tarballs import Tarballs
from kohakuriver.host.store import audit, image_jobs
from kohakuriver.host.store.audit import Deed
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.docker_api import Environment, Job, JobKind
from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.execution import ExecSession, ExecSpec
from kohakuriver.model.snowflake import Snowflakes
from kohakuriver.model.units import rfc3339
from kohakuriver.system.docker_environments import EnvironmentContainers, SeenEnvironment
from kohakuriver.system.hanging_up import end_strays

ACTIONS = {JobKind.CREATE: "docker.env.create", JobKind.TARBALL: "docker.tarball.create"}
HOST = Caller("host", Role.ADMIN)  # who asked for the first environment


@dataclass(frozen=True, slots=True)
class Environments:
    """What operators ask about environments; the work itself is done by `work`, one job after the other."""

    work: ImageWork
    ids: Snowflakes

    @property
    def containers(self) -> EnvironmentContainers:
        return self.work.containers

    @property
    def tarballs(self) -> Tarballs:
        return self.work.tarballs

    async def all(self) -> list[Environment]:
        """All of them, by name; raises EngineFailed without Docker."""
        await self.work.connect()
        seen = await self.containers.all()
        newest = {t.environment: t.stem for t in reversed(await asyncio.to_thread(self.tarballs.all))}
        return [_environment(each, newest.get(each.name, "")) for each in seen]

    async def start(self, name: str) -> Environment:
        """Have it run; raises NotFound, EngineFailed."""
        await self.work.connect()
        await self.containers.start(name)
        return await self._one(name)

    async def stop(self, name: str) -> Environment:
        """Have it end, with what is in it kept; raises NotFound, EngineFailed."""
        await self.work.connect()
        await self.containers.stop(name)
        return await self._one(name)

    async def delete(self, name: str) -> None:
        """Take it away; raises NotFound, EngineFailed, and Conflict while it is being worked on."""
        await self.work.connect()
        for job in await self.work.db.read(image_jobs.every):
            if job.environment == name and job.ended_at is None:
                raise Conflict(f"environment {name} is being worked on (job {job.job_id})")
        await self.containers.remove(name)

    async def run(self, name: str, spec: ExecSpec) -> ExecSession:
        """Start a process in it; raises NotFound, Conflict when it is stopped, EngineFailed."""
        await self.work.connect()
        await self.containers.get(name)
        return await self.containers.run(name, spec)

    async def create(self, caller: Caller, name: str, source: str, login: str | None = None) -> Job:
        """Have one made of an image (pulled with USER:PASSWORD) or a tarball's stem.

        Raises Conflict when there is one, EngineFailed.
        """
        await self.work.connect()
        if name in {each.name for each in await self.containers.all()}:
            raise Conflict(f"there is an environment {name} already")
        return await self._want(caller, JobKind.CREATE, name, source, login)

    async def make_tarball(self, caller: Caller, name: str) -> Job:
        """Have one made of it as it is then; raises NotFound, Conflict, EngineFailed."""
        await self.work.connect()
        await self.containers.get(name)
        return await self._want(caller, JobKind.TARBALL, name)

    async def job(self, job_id: Snowflake) -> Job:
        """How far a job is; raises NotFound."""
        return self.work.with_progress(await self.work.db.read(lambda tx: image_jobs.get(tx, job_id)))

    async def jobs(self) -> list[Job]:
        """The latest, newest first."""
        return [self.work.with_progress(job) for job in await self.work.db.read(image_jobs.every)]

    async def begin(self) -> None:
        """End what shells of a killed host left; once in its life, have the first environment made if there is Docker."""
        settings = self.work.settings
        await end_strays(self.containers.mark)
        if not settings.default_container_name or not self.work.has_docker():
            return
        if await self.work.db.write(image_jobs.is_first_start):
            with suppress(Conflict, EngineFailed):
                await self.create(HOST, settings.default_container_name, settings.initial_base_image)

    async def _want(self, caller: Caller, kind: JobKind, name: str, source: str = "", login: str | None = None) -> Job:
        now = self.work.clock.now()
        job = Job(
            job_id=self.ids.next(),
            kind=kind,
            environment=name,
            source=source,
            created_by=caller.name,
            created_at=rfc3339(now),
        )

        def insert(tx: sqlite3.Connection) -> None:
            image_jobs.insert(tx, job, login)
            audit.record(tx, caller, Deed(ACTIONS[kind], f"environment:{name}", source), now)

        await self.work.db.write(insert)
        self.work.wake.set()
        return job

    async def _one(self, name: str) -> Environment:
        found = [each for each in await self.all() if each.name == name]
        if not found:
            raise NotFound(f"there is no environment {name}")
        return found[0]


def _environment(seen: SeenEnvironment, tarball: str) -> Environment:
    return Environment(
        name=seen.name, image=seen.image, status=seen.status, created_at=rfc3339(seen.created_at), tarball=tarball
    )
