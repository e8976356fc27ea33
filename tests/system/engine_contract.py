"""What every engine must do: one suite, run on each of them.

To run it on an engine, write in a test module

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def rig(self, tmp_path: Path) -> Iterator[Rig]:
            yield Rig(make=..., directory=tmp_path, image=...)

Commands are in the vocabulary of `tests.fake_shell`, which /bin/sh and busybox speak as well.
"""

from tests.system.contract_control import ControlContract
from tests.system.contract_exec import ExecContract
from tests.system.contract_life import LifeContract
from tests.system.contract_output import OutputContract
from tests.system.contract_watching import WatchingContract
from tests.system.engine_rig import Rig

__all__ = ["EngineContract", "Rig"]


class EngineContract(LifeContract, OutputContract, ControlContract, WatchingContract, ExecContract):
    """Inherit it and give a `rig`."""
