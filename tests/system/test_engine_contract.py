"""The contract suite, run on the fake and on the process engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine, FakeNode
from tests.system.engine_contract import EngineContract, Rig


class TestFakeEngine(EngineContract):
    """The fake is true."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        node = FakeNode()
        yield Rig(make=lambda cluster, name: FakeEngine(node, cluster, name), directory=tmp_path)
