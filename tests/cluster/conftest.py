"""Clusters on both engines, for the tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.rig import Rig
from tests.docker_daemon import IMAGE, Daemon

PROCESS = {"KOHAKURIVER_ENGINE": "process", "KOHAKURIVER_PROCESS_ENGINE_ALLOWED": "true"}
MakeRig = Callable[..., Rig]


def docker_env(daemon: Daemon, marks: Path) -> dict[str, str]:
    """A runner's settings for containers of that daemon, which may mount `marks`."""
    return {
        "KOHAKURIVER_ENGINE": "docker",
        "KOHAKURIVER_DOCKER_SOCKET": daemon.socket,
        "KOHAKURIVER_INITIAL_BASE_IMAGE": IMAGE,
        "KOHAKURIVER_ALLOWED_MOUNT_ROOTS": f'["{marks}"]',
        "KOHAKURIVER_TASK_SHM_BYTES": "64000000",
    }


@pytest.fixture
def make_rig(pyz: Path, tmp_path: Path) -> Iterator[MakeRig]:
    """Makes started clusters of the built file, and stops them."""
    made: list[Rig] = []

    def make(names: tuple[str, ...], env: dict[str, str]) -> Rig:
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        rig = Rig(pyz, folder)
        for name in names:
            rig.add_runner(name, env)
        made.append(rig)
        rig.start()
        return rig

    yield make
    for rig in made:
        rig.stop()
