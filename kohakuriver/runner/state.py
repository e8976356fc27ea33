"""The Runner value that endpoints receive: every part of one runner."""

from dataclasses import dataclass

from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.host_keys import HostKeys
from kohakuriver.runner.host_link import HostLink
from kohakuriver.runner.store import Store
from kohakuriver.runner.terminals import Terminals
from kohakuriver.runner.vitals import Vitals
from kohakuriver.runner.ways import Ways
from kohakuriver.runner.workloads import Workloads
from kohakuriver.system.clock import Clock
from kohakuriver.system.files import Files
from kohakuriver.system.loops import Loops
from kohakuriver.system.unfinished import Unfinished


@dataclass(frozen=True, slots=True)
class Runner:
    """One runner; `url` is where the host reaches it, empty until it listens."""

    settings: RunnerSettings
    hostname: str
    bench: Bench
    workloads: Workloads
    vitals: Vitals
    link: HostLink
    files: Files
    unfinished: Unfinished
    terminals: Terminals
    host_keys: HostKeys
    ways: Ways
    url: str = ""

    @property
    def clock(self) -> Clock:
        return self.bench.clock

    @property
    def loops(self) -> Loops:
        return self.bench.loops

    @property
    def store(self) -> Store:
        return self.bench.store
