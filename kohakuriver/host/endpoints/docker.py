"""Environments, their tarballs, and the host's long work on them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator

from kohakuriver.host.services.image_work import TARBALL_SUFFIX
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, changes
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import docker_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotFound, OutOfRange
from kohakuriver.model.events import Kind, Step
from kohakuriver.model.files import SIZE_HEADER
from kohakuriver.model.image import Tarball
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.serve import Streamed, on, on_stream


async def environments(host: Host, caller: Caller, asked: Nothing) -> list[api.Environment]:
    return await host.environments.all()


async def create(host: Host, caller: Caller, asked: api.CreateEnvironment) -> api.Job:
    if asked.tarball is None:
        image = asked.image or host.settings.initial_base_image
        return await host.environments.create(caller, asked.name, image, asked.registry_login)
    if not await asyncio.to_thread(host.environments.tarballs.path(asked.tarball).is_file):
        raise NotFound(f"there is no tarball {asked.tarball} in {host.environments.tarballs.directory}")
    return await host.environments.create(caller, asked.name, asked.tarball + TARBALL_SUFFIX)


async def start(host: Host, caller: Caller, asked: api.EnvironmentName) -> api.Environment:
    found = await host.environments.start(asked.name)
    await _note_state(host, caller, "start", (asked.name, "started"))
    return found


async def stop(host: Host, caller: Caller, asked: api.EnvironmentName) -> api.Environment:
    found = await host.environments.stop(asked.name)
    await _note_state(host, caller, "stop", (asked.name, "stopped"))
    return found


async def delete(host: Host, caller: Caller, asked: api.EnvironmentName) -> Nothing:
    await host.environments.delete(asked.name)
    await _note_state(host, caller, "delete", (asked.name, "deleted"))
    return Nothing()


async def jobs(host: Host, caller: Caller, asked: Nothing) -> list[api.Job]:
    return await host.environments.jobs()


async def job(host: Host, caller: Caller, asked: api.JobId) -> api.Job:
    return await host.environments.job(asked.job_id)


async def tarballs(host: Host, caller: Caller, asked: Nothing) -> list[Tarball]:
    return await asyncio.to_thread(host.environments.tarballs.all)


async def make_tarball(host: Host, caller: Caller, asked: api.EnvironmentName) -> api.Job:
    return await host.environments.make_tarball(caller, asked.name)


async def get_tarball(host: Host, caller: Caller, asked: api.ReadTarball) -> Streamed:
    tarball = await asyncio.to_thread(host.environments.tarballs.find, asked.name)
    return await _bytes_of(host, tarball, asked.offset)


async def fetch_tarball(host: Host, caller: Caller, asked: api.FetchTarball) -> Streamed:
    tarball = await asyncio.to_thread(host.environments.tarballs.find, asked.stem)
    if (tarball.stem, tarball.digest) != (asked.stem, asked.digest):
        raise NotFound(f"there is no tarball {asked.stem} of these bytes any more")
    return await _bytes_of(host, tarball, asked.offset)


async def delete_tarball(host: Host, caller: Caller, asked: api.WhichTarball) -> Tarball:
    known = host.environments.tarballs
    tarball = await asyncio.to_thread(known.find, asked.name)
    await asyncio.to_thread(known.delete, tarball.stem)
    await _note(host, caller, Deed("docker.tarball.delete", f"tarball:{tarball.stem}"))
    return tarball


async def _bytes_of(host: Host, tarball: Tarball, offset: int) -> Streamed:
    if offset > tarball.size_bytes:
        said = f"offset: {tarball.stem} has only {tarball.size_bytes} bytes"
        raise OutOfRange(said, {"size_bytes": tarball.size_bytes})
    chunks = await asyncio.to_thread(host.environments.tarballs.read, tarball, offset)
    headers = {
        "Content-Length": str(tarball.size_bytes - offset),
        SIZE_HEADER: str(tarball.size_bytes),
        api.TARBALL_HEADER: f"{tarball.stem} {tarball.size_bytes} {tarball.digest}",
    }
    return Streamed(_in_threads(chunks), headers)


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


async def _note_state(host: Host, caller: Caller, verb: str, became: tuple[str, str]) -> None:
    """What somebody did to an environment, and what became of it: its name and state."""
    now, (name, state) = host.clock.now(), became

    def note(tx: sqlite3.Connection) -> None:
        audit.record(tx, caller, Deed(f"docker.env.{verb}", f"environment:{name}"), now)
        changes.tell(tx, Kind.ENVIRONMENT, name, Step(at=rfc3339(now), state=state, by=caller.name))

    await host.db.write(note)


async def _note(host: Host, caller: Caller, deed: Deed) -> None:
    await host.db.write(lambda tx: audit.record(tx, caller, deed, host.clock.now()))


ANSWERS = [
    on(api.ENV_LIST, environments),
    on(api.ENV_CREATE, create),
    on(api.ENV_START, start),
    on(api.ENV_STOP, stop),
    on(api.ENV_DELETE, delete),
    on(api.JOB_LIST, jobs),
    on(api.JOB_SHOW, job),
    on(api.TARBALL_LIST, tarballs),
    on(api.TARBALL_CREATE, make_tarball),
    on_stream(api.TARBALL_GET, get_tarball),
    on_stream(api.TARBALL_FETCH, fetch_tarball),
    on(api.TARBALL_DELETE, delete_tarball),
]
