"""The images of a node: whether they are there, pulled if they are not, and whether they have a program."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused, failed, not_pulled, told_as
from kohakuriver.system.docker_program import ImageFacts, can_run, image_facts, places
from kohakuriver.system.docker_stream import get, reading
from kohakuriver.system.engine import ContainerSpec

# Made by us on a node and carried as tarballs: no registry has them.
_OURS = re.compile(r"kohakuriver(-snapshot)?/")
_ID = re.compile(r"(sha256:)?([0-9a-f]{12}|[0-9a-f]{64})")


class Images:
    """What is known of the images of one daemon."""

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._facts: dict[str, ImageFacts] = {}
        self._pulling: dict[str, asyncio.Lock] = {}
        self._has: set[tuple[str, tuple[str, ...]]] = set()

    async def ensure(self, image: str) -> None:
        """Return when the image is here, pulling it if need be; raises EngineFailed."""
        if not await self._is_here(image):
            async with self._pulling.setdefault(image, asyncio.Lock()):
                if not await self._is_here(image):
                    await self._pull(image)

    async def check_program(self, spec: ContainerSpec, container_id: str) -> None:
        """Raise EngineFailed when the image surely lacks the program; looks into the container, once per image."""
        with told_as(f"cannot look into image {spec.image}"):
            image = self._facts.get(spec.image) or await self._look(spec.image)
            wanted = tuple(places(spec, image))
            if not wanted or (image.id, wanted) in self._has:
                return
            for place in wanted:
                if await self._can_run(container_id, place):
                    self._has.add((image.id, wanted))
                    return
        raise EngineFailed(f"image {spec.image} has no program {spec.command[0]!r}")

    async def _can_run(self, container_id: str, place: str) -> bool:
        target = f"/containers/{container_id}/archive?{urlencode({'path': place})}"
        try:
            async with reading(await get(self._client.socket, target, "HEAD")) as answer:
                return can_run(answer.headers["x-docker-container-path-stat"])
        except ApiRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise

    async def _is_here(self, image: str) -> bool:
        try:
            await self._look(image)
        except ApiRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise failed(f"image {image}", error) from None
        return True

    async def _look(self, image: str) -> ImageFacts:
        found = image_facts(await self._client.look(f"/images/{quote(image)}/json"))
        self._facts[image] = found
        return found

    async def _pull(self, image: str) -> None:
        if _OURS.match(image) or _ID.fullmatch(image):
            raise EngineFailed(f"image {image} is not on this node, and no registry has it", retry_elsewhere=True)
        try:
            await self._client.call(Pool.PULLS, lambda api: _check(image, api.pull(image, stream=True, decode=True)))
            await self._look(image)
        except ApiRefused as error:
            raise not_pulled(image, error.explanation) from None


def _check(image: str, progress: Iterable[Mapping[str, Any]]) -> None:
    """Read the progress of a pull to its end; raises EngineFailed for an error told in the middle."""
    for line in progress:
        if "error" in line:
            raise not_pulled(image, str(line["error"]))
