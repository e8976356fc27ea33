"""What an admin is told of a node: its disk, its engine's limits; and that broken senses break nothing."""

from pathlib import Path

from kohakuriver.model.errors import Unavailable
from kohakuriver.model.node import Gpu, Machine, Metrics
from kohakuriver.system.engine import EngineInfo
from tests.fake_engine import FakeEngine
from tests.runner.stage import BigMachine, Stage, play


class FullDisk(BigMachine):
    async def sample(self) -> Metrics:
        gpus = (Gpu(index=1, name="b", utilization_percent=90.0, memory_used_bytes=2), Gpu(index=0, name="a"))
        return Metrics(disk_total_bytes=1000 * 10**9, disk_used_bytes=990 * 10**9, gpus=gpus)


class Blind(BigMachine):
    def __init__(self) -> None:
        self.sees = False

    async def machine(self) -> Machine:
        if not self.sees:
            raise Unavailable("cannot learn how many CPUs there are")
        return await super().machine()

    async def sample(self) -> Metrics:
        raise Unavailable("cannot see")


class WeakEngine(FakeEngine):
    async def describe(self) -> EngineInfo:
        return EngineInfo(name="weak", version="v" * 100, limits_memory=False, limits_cpu=False, gpus=False)


def test_a_disk_that_is_nearly_full_is_told_and_gpus_go_by_index(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.senses = FullDisk()
        await stage.start_runner(resource_check_interval_seconds=1.0)
        await stage.at_rest()
        await stage.until(lambda: len(stage.host.heartbeats) > 1, pass_seconds=0.5)
        beat = stage.host.heartbeats[-1]
        assert "is nearly full: 10.0G left" in beat.warnings[0]
        assert beat.samples[-1].gpu_percent == [0.0, 90.0]
        assert beat.samples[-1].gpu_memory_used_bytes == [0, 2]

    play(tmp_path, script, runner=False)


def test_an_engine_that_cannot_limit_says_so(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.start_runner(WeakEngine(stage.node, stage.host.cluster_id, "alpha"))
        await stage.at_rest()
        (register,) = stage.host.registers
        assert register.warnings == ["the engine (weak) cannot limit memory and cores of tasks here"]
        assert register.engine_version == "v" * 64

    play(tmp_path, script, runner=False)


def test_a_machine_that_cannot_be_read_yet_is_introduced_later(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.senses = senses = Blind()
        await stage.start_runner()
        await stage.clock.advance(20)
        assert not stage.host.registers
        senses.sees = True
        await stage.until(lambda: stage.runner.link.joined, pass_seconds=0.1)
        await stage.until(lambda: stage.host.heartbeats, pass_seconds=0.5)

    play(tmp_path, script, runner=False)
