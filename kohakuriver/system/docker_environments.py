"""The environment containers of one cluster on the host's Docker daemon, by their names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.execution import ExecSpec
from kohakuriver.model.image import TARBALL_LABEL, image_name
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused, told_as
from kohakuriver.system.docker_exec import DockerExec, begin_exec
from kohakuriver.system.docker_root import open_root
from kohakuriver.system.docker_spec import CLUSTER_LABEL, LABEL, NANO
from kohakuriver.system.rooted import Root

PREFIX = "kohakuriver-env-"
TYPE_LABEL, TYPE = f"{LABEL}type", "environment"
# It waits until it is told to end, with nothing but a shell.
WAITER = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """What an environment's container is made of; 0 is no limit, `shared_data` empty without shared storage."""

    name: str
    image: str
    cpu_limit: float
    memory_limit_bytes: int
    shared_data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEnvironment:
    """An environment as the daemon has it; `created_at` in unix seconds."""

    name: str
    image: str
    status: str
    created_at: int


class EnvironmentContainers:
    """Hands for them; every method raises EngineFailed, and NotFound for a name that is not there."""

    def __init__(self, client: DockerClient, cluster: str) -> None:
        self._client, self._cluster = client, cluster
        self.mark = f"{cluster}/environment/shell"  # no node can have such a name

    async def all(self) -> list[SeenEnvironment]:
        """All of ours, whatever they do, by name."""
        filters = json.dumps({"label": [f"{CLUSTER_LABEL}={self._cluster}", f"{TYPE_LABEL}={TYPE}"]})
        with told_as("cannot list the environments"):
            found = await self._client.look("/containers/json", all="1", filters=filters)
        seen = [_seen(each) for each in found if each["Names"][0].startswith(f"/{PREFIX}")]
        return sorted(seen, key=lambda each: each.name)

    async def get(self, name: str) -> SeenEnvironment:
        """One of ours."""
        for seen in await self.all():
            if seen.name == name:
                return seen
        raise NotFound(f"there is no environment {name}")

    async def create(self, spec: EnvironmentSpec) -> None:
        """Make it and start it; once more is as once. Raises Conflict when somebody else's container has the name."""
        config = _config(spec, self._cluster)
        with told_as(f"cannot create environment {spec.name}"):
            try:
                await self._client.call(
                    Pool.ACTS, lambda api: api.create_container_from_config(config, PREFIX + spec.name)
                )
            except ApiRefused as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                if spec.name not in {seen.name for seen in await self.all()}:
                    raise Conflict(f"a container that is not ours has the name {PREFIX}{spec.name}") from None
        await self.start(spec.name)

    async def start(self, name: str) -> None:
        """Have it run; nothing happens when it does."""
        await self._act(name, lambda api, container: api.start(container))

    async def stop(self, name: str) -> None:
        """Have it end; nothing happens when it has."""
        await self._act(name, lambda api, container: api.stop(container, timeout=STOP_SECONDS))

    async def open_root(self, name: str, writable: bool) -> Root:
        """Its files, running or not; whoever asked closes it."""
        await self.get(name)
        return await open_root(self._client, PREFIX + name, writable)

    async def remove(self, name: str) -> None:
        """Take it away with what was installed in it."""
        await self._act(name, lambda api, container: api.remove_container(container, v=True, force=True))

    async def commit(self, name: str, stem: str) -> None:
        """Make an image of it, under the name by which nodes know it, that says in which tarball it comes."""
        repository, _, tag = image_name(name).rpartition(":")
        changes = ["ENTRYPOINT []", 'CMD ["/bin/sh"]', f"LABEL {TARBALL_LABEL}={stem}"]
        await self._act(
            name, lambda api, container: api.commit(container, repository=repository, tag=tag, changes=changes)
        )

    async def run(self, name: str, spec: ExecSpec) -> DockerExec:
        """Start a process in it; raises Conflict when it does not run."""
        return await begin_exec(self._client, PREFIX + name, spec, self.mark)

    async def _act(self, name: str, act: Any) -> None:
        await self.get(name)  # nothing that is not ours is touched
        with told_as(f"environment {name}"):
            try:
                await self._client.call(Pool.ACTS, lambda api: act(api, PREFIX + name))
            except ApiRefused as error:
                if error.is_no_such_container:
                    raise NotFound(f"there is no environment {name}") from None
                raise


def _seen(listed: Mapping[str, Any]) -> SeenEnvironment:
    return SeenEnvironment(
        name=listed["Names"][0].removeprefix(f"/{PREFIX}"),
        image=listed["Labels"].get(f"{LABEL}from") or listed["Image"],
        status=listed["State"],
        created_at=int(listed["Created"]),
    )


def _config(spec: EnvironmentSpec, cluster: str) -> dict[str, Any]:
    mounts = [{"Type": "bind", "Source": spec.shared_data, "Target": "/shared"}] if spec.shared_data else []
    limits: dict[str, Any] = {"NanoCpus": int(spec.cpu_limit * NANO)} if spec.cpu_limit else {}
    if spec.memory_limit_bytes:
        limits["Memory"] = limits["MemorySwap"] = spec.memory_limit_bytes
    return {
        "Image": spec.image,
        "Entrypoint": list(WAITER),
        "Cmd": [],
        "Labels": {CLUSTER_LABEL: cluster, TYPE_LABEL: TYPE, f"{LABEL}from": spec.image},
        "HostConfig": {
            **limits,
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "RestartPolicy": {"Name": "unless-stopped"},
            "Mounts": mounts,
        },
    }


def no_docker(why: EngineFailed) -> EngineFailed:
    """What a host without Docker says when it is asked for what needs it."""
    return EngineFailed(f"environments need Docker on the host itself (DOCKER_SOCKET), and {why}")
