"""The first environment of a host, and a host that has no Docker."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.host.services.image_work import ImageWork
from kohakuriver.system.clock import SystemClock
from kohakuriver.system.docker_environments import EnvironmentContainers
from kohakuriver.system.docker_images import Images
from kohakuriver.system.image_hands import FoundImage
from tests.docker_daemon import IMAGE, Daemon
from tests.host.rig import House, running


async def jobs_over(house: House) -> list[dict[str, Any]]:
    """The host's jobs once none is under way."""
    while True:
        jobs: list[dict[str, Any]] = await house.get("/api/docker/jobs")
        if all(job["ended_at"] for job in jobs):
            return jobs
        await asyncio.sleep(0.02)


def live(folder: Path, script: Any, **settings: Any) -> None:
    async def body() -> None:
        async with asyncio.timeout(90), running(folder, SystemClock(), **settings) as house:
            await script(house)

    asyncio.run(body())


@pytest.mark.docker
def test_the_first_environment_is_made_once_in_the_life_of_a_host(tmp_path: Path, docker_daemon: Daemon) -> None:
    with_docker = {"docker_socket": docker_daemon.socket, "initial_base_image": IMAGE}

    async def first(house: House) -> None:
        (job,) = await jobs_over(house)
        assert (job["environment"], job["state"], job["created_by"]) == ("base", "done", "host")
        assert [each["name"] for each in await house.get("/api/docker/environments")] == ["base"]
        status, _ = await house.ask("DELETE", "/api/docker/environments/base")
        assert status == 200

    async def second(house: House) -> None:
        assert len(await jobs_over(house)) == 1  # who deleted it does not want it

    live(tmp_path, first, **with_docker)
    live(tmp_path, second, **with_docker)


@pytest.mark.docker
def test_a_base_image_that_cannot_be_had_is_told_and_nothing_else_suffers(
    tmp_path: Path, docker_daemon: Daemon
) -> None:
    async def script(house: House) -> None:
        (job,) = await jobs_over(house)
        assert job["state"] == "failed" and "cannot be pulled" in job["message"]
        assert await house.get("/api/docker/environments") == []

    live(tmp_path, script, docker_socket=docker_daemon.socket, initial_base_image="localhost:1/nothing:x")


def test_a_host_without_docker_works_and_says_what_needs_it(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        assert await house.get("/api/docker/jobs") == [] and await house.get("/api/docker/tarballs") == []
        for method, path, body in (
            ("GET", "/api/docker/environments", None),
            ("POST", "/api/docker/environments", {"name": "lab", "image": "x"}),
            ("POST", "/api/docker/tarballs/lab", None),
            ("POST", "/api/docker/environments/lab/start", None),
        ):
            status, message = await house.refused(method, path, body)
            assert status == 502 and message.startswith("environments need Docker on the host itself (DOCKER_SOCKET)")

    live(tmp_path, script, docker_socket=str(tmp_path / "none"))


class MadeUp:
    """An environment and its image, in the place of a daemon's."""

    mark = "made up"

    def __init__(self, size_bytes: int) -> None:
        self.committed: list[str] = []
        self._image = FoundImage("id", "digest", size_bytes, {})

    async def get(self, name: str) -> None:
        """It is there."""

    async def commit(self, name: str, stem: str) -> None:
        self.committed.append(stem)

    async def find(self, image: str) -> FoundImage:
        return self._image


def test_an_environment_that_no_node_would_load_is_not_written_to_the_shared_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(self: ImageWork) -> None:
        """There is a daemon."""

    monkeypatch.setattr(ImageWork, "connect", connect)

    async def script(house: House) -> None:
        work, made_up = house.host.environments.work, MadeUp(3_000_000)
        work.containers, work.images = cast(EnvironmentContainers, made_up), cast(Images, made_up)
        await house.post("/api/docker/tarballs/big")
        (job,) = await jobs_over(house)
        assert job["state"] == "failed" and made_up.committed
        assert "takes 3.0M" in job["message"] and "IMAGE_LIMIT_BYTES" in job["message"]
        assert not list(work.tarballs.directory.glob("*"))

    live(tmp_path, script, image_limit_bytes=2_000_000)
