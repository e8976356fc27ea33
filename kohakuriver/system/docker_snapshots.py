"""The VPS of one node as containers that outlive their end, and their snapshots as images.

A snapshot is made under a name that no list shows, and gets its real name when it is whole: Docker gives a name in one
step. What a death left under the other name is swept away before the next one is made. Each commit adds a layer, and
overlay2 mounts some 125 at most: long before that a snapshot is written flat, as one layer.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.model.units import show_bytes
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_containers import Containers
from kohakuriver.system.docker_errors import ApiRefused, told_as
from kohakuriver.system.docker_spec import ATTEMPT_LABEL, CLUSTER_LABEL, NANO, NODE_LABEL, TASK_LABEL, Owner
from kohakuriver.system.engine import SECRETS_LABEL, TYPE_LABEL, Observed, Phase, Saved, WorkloadKey

log = logging.getLogger(__name__)
FLAT_FROM_LAYERS = 60
REPOSITORY, UNFINISHED = "kohakuriver-snapshot/vps-{}", "kohakuriver-unfinished/vps-{}"
OF, CLUSTER, MESSAGE, AUTOMATIC, BEGAN = (
    f"kohakuriver.snapshot.{word}" for word in ("of", "cluster", "message", "automatic", "began")
)
# A container that somebody makes from a snapshot by hand must not look like one of ours.
NOT_OURS = dict.fromkeys((CLUSTER_LABEL, NODE_LABEL, TASK_LABEL, ATTEMPT_LABEL, TYPE_LABEL, SECRETS_LABEL), "")
KEPT_SETTINGS = ("Env", "User", "WorkingDir", "Labels")


class DockerWorkspaces:
    """The containers and snapshots of VPS of one daemon."""

    def __init__(
        self,
        client: DockerClient,
        containers: Containers,
        owner: Owner,
        begin_again: Callable[[WorkloadKey], Awaitable[None]],
        flat_from_layers: int = FLAT_FROM_LAYERS,
    ) -> None:
        self._begin_again = begin_again
        self._client, self._containers, self._owner = client, containers, owner
        self._flat_from_layers = flat_from_layers

    async def start_again(self, key: WorkloadKey) -> None:
        """Start one that exited once more; a no-op when it runs."""
        await self._begin_again(key)

    async def is_adrift(self, key: WorkloadKey) -> bool:
        """Whether the daemon died as it started it, and the one that came after takes it for never started."""
        return (await self._containers.observe(key)).phase is Phase.CREATED

    async def containers(self, task_id: int) -> list[Observed]:
        """Every container of a VPS, the one of the latest attempt last."""
        keys = [each.key for each in await self._containers.list() if each.key.task_id == task_id]
        seen = [await self._containers.observe(key) for key in sorted(keys)]
        return [each for each in seen if each.is_vps]

    async def changed_since(self, key: WorkloadKey, moment: float) -> bool:
        """Whether a file may have changed; what a container has written lies in one directory of the node."""
        facts = await self._facts(key)
        upper = (facts.get("GraphDriver", {}).get("Data") or {}).get("UpperDir")
        if not upper:
            return True
        return await self._client.run(Pool.FILES, lambda: has_newer(Path(upper), moment))

    async def cpu_seconds(self, key: WorkloadKey) -> float:
        """The processor time that it has taken, as the daemon counts it."""
        container_id = await self._containers.id_of(key)
        with told_as("cannot ask what the container does"):
            stats = await self._client.look(f"/containers/{container_id}/stats", stream="false", **{"one-shot": "true"})
        return int(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / NANO

    async def lacks_room(self, key: WorkloadKey, reserve_bytes: int) -> str:
        """Why a snapshot would leave too little on the disk of the daemon; empty text when it would not."""
        with told_as("cannot measure the container"):
            container_id = await self._containers.id_of(key)
            facts = await self._client.look(f"/containers/{container_id}/json", size="1")
            root = (await self._client.look("/info"))["DockerRootDir"]
        needed_bytes = int(facts.get("SizeRw") or 0)
        if await self._is_deep(facts):
            needed_bytes = int(facts.get("SizeRootFs") or needed_bytes)
        free_bytes = await self._client.run(Pool.FILES, lambda: _free_bytes(root))
        if free_bytes - needed_bytes >= reserve_bytes:
            return ""
        return (
            f"a snapshot takes {show_bytes(needed_bytes)} of {root}, where {show_bytes(free_bytes)} are free "
            f"and {show_bytes(reserve_bytes)} must stay so"
        )

    async def take(self, key: WorkloadKey, saved: Saved) -> None:
        """Save it: under another name first, then, whole, under its own; it stands still meanwhile."""
        facts = await self._facts(key)
        labels = {
            **NOT_OURS,
            OF: str(key.task_id),
            CLUSTER: self._owner.cluster,
            MESSAGE: saved.message,
            AUTOMATIC: str(saved.automatic).lower(),
            BEGAN: repr(saved.began_at),
        }
        unfinished = UNFINISHED.format(key.task_id)
        stands_still = facts["State"]["Status"] == "running"
        if stands_still:
            await self._containers.pause(key)
        try:
            with told_as("cannot make the snapshot"):
                if await self._is_deep(facts):
                    await self._write_flat(facts, f"{unfinished}:{saved.timestamp}", labels)
                else:
                    await self._commit(facts, f"{unfinished}:{saved.timestamp}", labels)
                await self._name(f"{unfinished}:{saved.timestamp}", key.task_id, saved.timestamp)
        finally:
            if stands_still:
                await asyncio.shield(self._thaw(key))

    async def _thaw(self, key: WorkloadKey) -> None:
        """Let it go on; a daemon that died meanwhile leaves it frozen, which is seen, and healed, when it is back."""
        with suppress(EngineFailed, NotFound, Conflict):
            if (await self._containers.observe(key)).phase is Phase.PAUSED:
                await self._containers.resume(key)

    async def snapshots(self, task_id: int) -> list[Saved]:
        """All that there are, oldest first; what is not finished has another name."""
        prefix = f"{REPOSITORY.format(task_id)}:"
        found = []
        for image in await self._images(task_id):
            for name in image["RepoTags"] or ():
                if name.startswith(prefix):
                    found.append(await self._saved(image, name))
        return sorted(found, key=lambda each: each.timestamp)

    async def delete_snapshot(self, task_id: int, timestamp: int) -> None:
        """Take its name away, and its files when nothing is made of them."""
        name = image_name(task_id, timestamp)
        if not await self._remove_image(name):
            raise NotFound(f"VPS {task_id} has no snapshot {timestamp}")

    async def sweep(self, task_id: int) -> None:
        """Take away what is unfinished, and what lost its name and is used by nothing."""
        unfinished = f"{UNFINISHED.format(task_id)}:"
        for image in await self._images(task_id):
            names = [name for name in image["RepoTags"] or () if name != "<none>:<none>"]
            for name in names:
                if name.startswith(unfinished):
                    log.info("sweeping an unfinished snapshot image=%s", name)
                    await self._remove_image(name)
            if not names:
                await self._remove_image(image["Id"])

    async def _facts(self, key: WorkloadKey) -> dict[str, Any]:
        with told_as("cannot look at the container"):
            container_id = await self._containers.id_of(key)
            try:
                found: dict[str, Any] = await self._client.look(f"/containers/{container_id}/json")
            except ApiRefused as error:
                if error.is_no_such_container:
                    raise NotFound(f"Docker has no container of VPS {key.task_id} attempt {key.attempt}") from None
                raise
        return found

    async def _is_deep(self, facts: Mapping[str, Any]) -> bool:
        try:
            image = await self._client.look(f"/images/{quote(facts['Image'])}/json")
        except ApiRefused:
            return True  # its image was taken away under it: what is written flat needs none
        return len(image["RootFS"].get("Layers") or ()) >= self._flat_from_layers

    async def _commit(self, facts: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> None:
        repository, _, tag = name.rpartition(":")
        config = {key: facts["Config"].get(key) for key in KEPT_SETTINGS} | {"Labels": dict(labels)}
        config["Env"] = without_secrets(facts["Config"])

        def commit(api: Any) -> None:
            api.commit(facts["Id"], repository=repository, tag=tag, conf=config, pause=False)

        await self._client.call(Pool.PULLS, commit)

    async def _write_flat(self, facts: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> None:
        repository, _, tag = name.rpartition(":")
        changes = instructions(facts["Config"], labels)

        def write(api: Any) -> None:
            chunks = api.export(facts["Id"])
            told = api.import_image_from_stream(chunks, repository=repository, tag=tag, changes=changes)
            check_import(told)

        await self._client.call(Pool.PULLS, write)

    async def _name(self, unfinished: str, task_id: int, timestamp: int) -> None:
        repository = REPOSITORY.format(task_id)
        await self._client.call(Pool.ACTS, lambda api: api.tag(unfinished, repository, str(timestamp)))
        await self._remove_image(unfinished)

    async def _images(self, task_id: int) -> list[dict[str, Any]]:
        filters = json.dumps({"label": [f"{OF}={task_id}", f"{CLUSTER}={self._owner.cluster}"]})
        with told_as("cannot list the snapshots"):
            found: list[dict[str, Any]] = await self._client.look("/images/json", filters=filters)
        return found

    async def _saved(self, image: Mapping[str, Any], name: str) -> Saved:
        with told_as("cannot look at the snapshot"):
            layers = await self._client.look(f"/images/{quote(name)}/history")
        labels = image["Labels"]
        return Saved(
            timestamp=int(name.rpartition(":")[2]),
            image=name,
            message=labels.get(MESSAGE, ""),
            automatic=labels.get(AUTOMATIC) == "true",
            began_at=float(labels.get(BEGAN) or 0),
            size_bytes=int(layers[0]["Size"]),
            total_bytes=int(image["Size"]),
        )

    async def _remove_image(self, name: str) -> bool:
        """Whether it was there; one that is used, or that others are made of, stays without this name."""
        by_name = not name.startswith("sha256:")
        try:
            await self._client.call(Pool.ACTS, lambda api: api.remove_image(name, force=by_name))
        except ApiRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            if error.status != HTTPStatus.CONFLICT:
                raise EngineFailed(f"cannot remove image {name}: {error.explanation}", retry_elsewhere=True) from None
        return True


def image_name(task_id: int, timestamp: int) -> str:
    """What the image of a snapshot is called."""
    return f"{REPOSITORY.format(task_id)}:{timestamp}"


def instructions(config: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """The lines of a Dockerfile that give an image these settings.

    Source: https://docs.docker.com/reference/dockerfile/ (words in double quotes; `$` and quotes behind a backslash).
    """
    lines = [
        f"ENV {name}={_quoted(value)}" for name, _, value in map(_named, without_secrets(config)) if "\n" not in value
    ]
    lines += [f"{word} {config[key]}" for word, key in (("USER", "User"), ("WORKDIR", "WorkingDir")) if config.get(key)]
    return lines + [f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in labels.items()]


def without_secrets(config: Mapping[str, Any]) -> list[str]:
    """The variables of a container, the secret ones without a value (one left out would come from the container)."""
    secret = ((config.get("Labels") or {}).get(SECRETS_LABEL) or "").split(",")
    named = map(_named, config.get("Env") or ())
    return [f"{name}=" if name in secret else f"{name}={value}" for name, _, value in named]


def _named(entry: str) -> tuple[str, str, str]:
    return entry.partition("=")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def check_import(told: str) -> None:
    """Raise EngineFailed when the daemon's account of an import ends in an error."""
    for line in told.splitlines():
        if line.strip() and "error" in (said := json.loads(line)):
            raise EngineFailed(f"cannot write the snapshot flat: {said['error']}", retry_elsewhere=True)


def has_newer(root: Path, moment: float) -> bool:
    """Whether anything below (or the root itself) changed after that moment; what cannot be read may have."""
    try:
        if root.lstat().st_ctime >= moment:
            return True
        for directory, names, files in os.walk(root, onerror=_raise):
            for name in (*names, *files):
                if os.lstat(os.path.join(directory, name)).st_ctime >= moment:
                    return True
    except OSError:
        return True
    return False


def _raise(error: OSError) -> None:
    raise error


def _free_bytes(directory: str) -> int:
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize
