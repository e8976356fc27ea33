"""The contract suite, run on the fake and on the process engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine, FakeNode
from tests.system.engine_contract import EngineContract, Rig
from tests.system.process_rig import leaves_nothing_behind, process_rig


class TestFakeEngine(EngineContract):
    """The fake is true."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        node = FakeNode()
        yield Rig(make=lambda cluster, name: FakeEngine(node, cluster, name), directory=tmp_path)


class TestProcessEngine(EngineContract):
    """Plain processes are true."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        yield process_rig(tmp_path, control_groups=True)
        leaves_nothing_behind(tmp_path)


class TestProcessEngineWithoutControlGroups(EngineContract):
    """They are where there are no control groups, too."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        yield process_rig(tmp_path, control_groups=False)
        leaves_nothing_behind(tmp_path)
