"""The images of a node: whether they are there, and pulled or loaded if they are not."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_archives import Transfer, load_image
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused, failed, not_pulled, told_as
from kohakuriver.system.image_hands import FoundImage, Login, SeenImage

# Made by us on a node and carried as tarballs: no registry has them.
_OURS = re.compile(r"kohakuriver(-snapshot)?/")
_ID = re.compile(r"(sha256:)?([0-9a-f]{12}|[0-9a-f]{64})")
_TAGGED = re.compile(r".*(@|:[^/]*)[^/]*")  # a colon before the last slash is a registry's port


class Images:
    """What is known of the images of one daemon; the hands of `ImageHands` for it."""

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._pulling: dict[str, asyncio.Lock] = {}

    async def ensure(self, image: str, login: Login | None = None, transfer: Transfer | None = None) -> bool:
        """Return when the image is here, pulling it if need be; whether it was. Raises EngineFailed."""
        if await self._is_here(image):
            return False
        async with self._pulling.setdefault(image, asyncio.Lock()):
            if await self._is_here(image):
                return False
            await self._pull(image, login, transfer or Transfer())
        return True

    async def load(self, path: Path, transfer: Transfer) -> None:
        """Have the daemon read an archive that was checked; raises EngineFailed, Stopped."""
        with told_as(f"cannot load {path.name}"):
            await self._client.run(Pool.PULLS, lambda: load_image(self._client.socket, path, transfer))

    async def find(self, image: str) -> FoundImage | None:
        """What there is under that name just now; raises EngineFailed."""
        found = await self._inspect(image)
        if not found:
            return None
        digest = str((found.get("RepoDigests") or [found["Id"]])[0])
        labels = (found.get("Config") or {}).get("Labels") or {}
        return FoundImage(str(found["Id"]), digest, int(found["Size"]), labels)

    async def all(self) -> list[SeenImage]:
        """All images of the daemon, with how many containers are made of each; raises EngineFailed."""
        with told_as("cannot list the images"):
            images = await self._client.look("/images/json")
            containers = await self._client.look("/containers/json", all="1")
        used = Counter(str(each["ImageID"]) for each in containers)
        return [_seen(each, used[each["Id"]]) for each in images]

    async def remove(self, name_or_id: str) -> None:
        """Take it away unless something is made of it; raises EngineFailed."""
        with told_as(f"cannot remove image {name_or_id}"):
            await self._client.call(Pool.ACTS, lambda api: api.remove_image(name_or_id, noprune=True))

    async def directory(self) -> str:
        """Where the daemon keeps them; raises EngineFailed."""
        with told_as("cannot ask Docker where its images are"):
            return str((await self._client.look("/info"))["DockerRootDir"])

    async def drop_superseded(self, image_id: str, by: str) -> None:
        """Take an image away that lost its name to a newer one; nothing happens while something is made of it."""
        newer = await self.find(by)
        if newer is not None and newer.id != image_id:
            with suppress(EngineFailed):  # a container or another image is made of it
                await self.remove(image_id)

    async def _inspect(self, image: str) -> Mapping[str, Any]:
        """What Docker tells of it; nothing when it is not here. Raises EngineFailed."""
        try:
            found: Mapping[str, Any] = await self._client.look(f"/images/{quote(image)}/json")
        except ApiRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return {}
            raise failed(f"image {image}", error) from None
        return found

    async def _is_here(self, image: str) -> bool:
        return bool(await self._inspect(image))

    async def _pull(self, image: str, login: Login | None, transfer: Transfer) -> None:
        if _OURS.match(image) or _ID.fullmatch(image):
            raise EngineFailed(f"image {image} is not on this node, and no registry has it", retry_elsewhere=True)
        whole = (
            image if _TAGGED.fullmatch(image) else f"{image}:latest"
        )  # without a tag Docker pulls all that there are
        account = {"username": login.username, "password": login.password} if login else None

        def pull(api: Any) -> None:
            _watch(image, api.pull(whole, stream=True, decode=True, auth_config=account), transfer)

        try:
            await self._client.call(Pool.PULLS, pull)
        except ApiRefused as error:
            raise not_pulled(image, error.explanation) from None
        if not await self._is_here(image):
            raise EngineFailed(f"image {image} is not on this node any more", retry_elsewhere=True)


def _watch(image: str, progress: Iterable[Mapping[str, Any]], transfer: Transfer) -> None:
    """Follow a pull to its end; raises EngineFailed for an error told in the middle, Stopped when it is given up."""
    done, total = Counter[str](), Counter[str]()
    for line in progress:
        if "error" in line:
            raise not_pulled(image, str(line["error"]))
        layer, detail = str(line.get("id", "")), line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and "total" in detail:
            done[layer], total[layer] = int(detail.get("current", 0)), int(detail["total"])
        elif line.get("status") in ("Download complete", "Pull complete"):
            done[layer] = total[layer]
        transfer.done_bytes, transfer.total_bytes = done.total(), total.total()
        transfer.check()


def _seen(listed: Mapping[str, Any], containers: int) -> SeenImage:
    names = [name for name in listed.get("RepoTags") or () if name != "<none>:<none>"]
    return SeenImage(
        id=str(listed["Id"]),
        names=tuple(names),
        size_bytes=int(listed["Size"]),
        created_at=int(listed["Created"]),
        labels=listed.get("Labels") or {},
        containers=containers,
    )
