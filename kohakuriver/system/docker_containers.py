"""The containers of one cluster on one node, by the keys of their workloads: every act on them may be repeated."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.system.clock import Clock
from kohakuriver.system.container_records import Records
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_errors import ApiRefused, failed, told_as
from kohakuriver.system.docker_spec import Owner, container_config, is_of_vps, key_of, observed, phase_of
from kohakuriver.system.engine import ContainerSpec, Observed, Phase, WorkloadKey

log = logging.getLogger(__name__)
T = TypeVar("T")
REMOVAL_TRIES, REMOVAL_PAUSE_SECONDS = 100, 0.1


class Containers:
    """Hands for our containers; every method raises EngineFailed, and NotFound for a key that is not there."""

    def __init__(self, client: DockerClient, owner: Owner, clock: Clock, records: Records) -> None:
        self._client = client
        self._owner = owner
        self._clock = clock
        self._records = records
        self._ids: dict[WorkloadKey, str] = {}

    async def create(self, spec: ContainerSpec) -> WorkloadKey | None:
        """Make it; the key of the older attempt that had to go for it, if there was one."""
        config = container_config(spec, self._owner, str(self._records.program), str(self._records.path(spec.key)))
        displaced = None
        while True:
            try:
                made = await self._client.act("POST", "/containers/create", config, name=spec.name)
            except ApiRefused as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise failed(f"cannot create {spec.name}", error) from None
                if (holder := await self._holder(spec)) == spec.key:
                    return displaced
                displaced = holder or displaced
            else:
                self._ids[spec.key] = made["Id"]
                return displaced

    async def start(self, key: WorkloadKey) -> None:
        """Start it; whether its program has run already is not looked at here."""
        with told_as("cannot start the container"):
            await self._act(key, "start")

    async def signal(self, key: WorkloadKey, number: int) -> None:
        """Send a signal to its init, which hands it on; nothing happens when it does not run."""
        with told_as(f"cannot send signal {number}"):
            try:
                await self._act(key, "kill", signal=str(int(number)))
            except ApiRefused as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise

    async def pause(self, key: WorkloadKey) -> None:
        """Freeze it; raises Conflict when it does not run."""
        await self._turn(key, Phase.PAUSED, "pause")

    async def resume(self, key: WorkloadKey) -> None:
        """Thaw it; raises Conflict when it does not run."""
        await self._turn(key, Phase.RUNNING, "unpause")

    async def observe(self, key: WorkloadKey) -> Observed:
        """Look at it."""
        with told_as("cannot look at the container"):
            facts = await self._ask(key, lambda container_id: self._client.look(f"/containers/{container_id}/json"))
        return observed(key, facts)

    async def list(self) -> list[Observed]:
        """What Docker's list tells of all of them: no times, and no exit codes."""
        return list((await self._list()).values())

    async def _list(self, only: WorkloadKey | None = None) -> dict[WorkloadKey, Observed]:
        filters = json.dumps(self._owner.filters(only))
        with told_as("cannot list the containers"):
            found = await self._client.look("/containers/json", all="1", filters=filters)
        by_key = {key: each for each in found if (key := key_of(each["Labels"])) is not None}
        self._ids |= {key: each["Id"] for key, each in by_key.items()}
        return {
            key: Observed(key, phase_of(each["State"]), is_vps=is_of_vps(each["Labels"]))
            for key, each in by_key.items()
        }

    async def id_of(self, key: WorkloadKey) -> str:
        """Docker's own name for it."""
        if key not in self._ids and key not in await self._list(key):
            raise _not_found(key)
        return self._ids[key]

    async def remove(self, key: WorkloadKey) -> None:
        """Take it away with its volumes, whatever it does; nothing happens when it is not there."""
        with suppress(NotFound):
            await self._take_away(await self.id_of(key))
        self._forget(key)

    async def _act(self, key: WorkloadKey, what: str, **query: str) -> None:
        await self._ask(
            key, lambda container_id: self._client.act("POST", f"/containers/{container_id}/{what}", **query)
        )

    async def _ask(self, key: WorkloadKey, question: Callable[[str], Awaitable[T]]) -> T:
        container_id = await self.id_of(key)
        try:
            return await question(container_id)
        except ApiRefused as error:
            if error.is_no_such_container:
                self._forget(key)
                raise _not_found(key) from None
            raise

    async def _turn(self, key: WorkloadKey, into: Phase, act: str) -> None:
        with told_as(f"cannot make it {into}"):
            try:
                await self._act(key, act)
            except ApiRefused:
                phase = (await self.observe(key)).phase
                if phase in (Phase.EXITED, Phase.CREATED):
                    raise Conflict(f"task {key.task_id} does not run") from None
                if phase is not into:
                    raise

    async def _holder(self, spec: ContainerSpec) -> WorkloadKey | None:
        """The key of whoever has our name: it is ours already, or an older attempt, which is gone then."""
        try:
            facts = await self._client.look(f"/containers/{quote(spec.name)}/json")
        except ApiRefused as error:
            if error.is_no_such_container:
                return None
            raise failed(f"cannot look at {spec.name}", error) from None
        labels = facts["Config"]["Labels"] or {}
        holder = key_of(labels)
        if holder is None or holder.task_id != spec.key.task_id or not self._owner.shares_cluster(labels):
            raise EngineFailed(f"a container that is not ours has the name {spec.name}", retry_elsewhere=True)
        if holder == spec.key and self._owner.owns(labels):
            self._ids[holder] = facts["Id"]
        elif holder.attempt < spec.key.attempt:
            log.info("an older attempt makes room task=%s attempt=%s", *holder)
            await self._take_away(facts["Id"])
            self._forget(holder)
        else:
            raise EngineFailed(f"{spec.name} is there already, as attempt {holder.attempt} of another node or later")
        return holder

    async def _take_away(self, container_id: str) -> None:
        for _ in range(REMOVAL_TRIES):
            with told_as("cannot remove the container"):
                try:
                    await self._client.act("DELETE", f"/containers/{container_id}", v="1", force="1")
                    return
                except ApiRefused as error:
                    if error.is_no_such_container:
                        return
                    if error.status != HTTPStatus.CONFLICT:  # its removal is under way
                        raise
            await self._clock.sleep(REMOVAL_PAUSE_SECONDS)
        raise EngineFailed("cannot remove the container: somebody else does, and does not end", retry_elsewhere=True)

    def _forget(self, key: WorkloadKey) -> None:
        self._ids.pop(key, None)


def _not_found(key: WorkloadKey) -> NotFound:
    return NotFound(f"Docker has no container of task {key.task_id} attempt {key.attempt}")
