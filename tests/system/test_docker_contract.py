"""The docker engine does what every engine must do, on a real daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.system.docker_engine import DockerEngine
from tests.docker_daemon import IMAGE, Daemon
from tests.system.engine_contract import EngineContract, Rig


@pytest.mark.docker
class TestDockerEngine(EngineContract):
    @pytest.fixture
    def rig(self, tmp_path: Path, docker_daemon: Daemon) -> Iterator[Rig]:
        yield Rig(
            make=lambda cluster, node: DockerEngine(
                cluster, node, tmp_path / f"{cluster}-{node}", docker_daemon.socket
            ),
            directory=tmp_path,
            image=IMAGE,
            network="none",
        )
        assert docker_daemon.containers() == []
