"""The first environment of a host, and a host that has no Docker."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.system.clock import SystemClock
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
