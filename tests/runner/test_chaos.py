"""Everything goes wrong at once, at random: deaths, lost events, an engine and a host that come and go."""

import random
from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed, RiverError, Unavailable
from kohakuriver.model.report import State
from tests.runner.stage import Stage, key, play

TASKS, ROUNDS = 24, 12


class Chaos:
    """A stage on which one seed decides what happens; tasks end by themselves, or are killed."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.dice = stage, random.Random(seed)
        self.codes = {n: self.dice.randrange(256) for n in range(1, TASKS + 1)}
        self.asked: set[int] = set()
        self.killed: set[int] = set()

    async def round(self) -> None:
        stage, dice = self.stage, self.dice
        faults = stage.engine.faults
        faults.events_lost, faults.events_doubled = dice.random(), dice.random() / 2
        faults.hold_logs, faults.unreachable = dice.random() < 0.3, dice.random() < 0.2
        for step in ("create", "start", "observe", "finish_logs", "remove"):
            faults.after[step] = [EngineFailed("lost", retry_elsewhere=True)] * (dice.random() < 0.3)
            faults.delay_seconds[step] = dice.choice((0, 0, 0.2))
        stage.host.error = Unavailable("ill") if dice.random() < 0.3 else None
        stage.host.acknowledges = dice.random() < 0.7
        for number in dice.sample(sorted(self.codes), 4):
            await self.ask(number)
        if self.asked and dice.random() < 0.3:
            await self.kill(dice.choice(sorted(self.asked)))
        await stage.clock.advance(dice.random() * 4)
        if dice.random() < 0.6:
            await stage.another_runner()

    async def ask(self, number: int) -> None:
        """The host asks until it is answered, so that some are asked for twice."""
        seconds = self.dice.random() * 3
        try:
            await self.stage.shell(f"echo a; sleep {seconds:.2f}; echo b; exit {self.codes[number]}", task_id=number)
            self.asked.add(number)
        except RiverError:
            return

    async def kill(self, number: int) -> None:
        try:
            await self.stage.kill(number, grace_seconds=self.dice.choice((0.0, 1.0)))
            self.killed.add(number)
        except RiverError:
            return

    async def calm_down(self) -> None:
        stage = self.stage
        stage.host.error, stage.host.acknowledges = None, True
        await stage.another_runner()
        await stage.at_rest()
        for number in sorted(self.codes.keys() - self.asked):
            await self.ask(number)
        await stage.until(lambda: len(stage.host.ends) >= TASKS, pass_seconds=0.2)
        await stage.forgotten()


@pytest.mark.parametrize("seed", range(6))
def test_every_task_ends_once_and_truly(tmp_path: Path, seed: int) -> None:
    async def script(stage: Stage) -> None:
        chaos = Chaos(stage, seed)
        for _ in range(ROUNDS):
            await chaos.round()
        await chaos.calm_down()
        assert sorted(end.task_id for end in stage.host.ends) == sorted(chaos.codes)
        assert max(stage.node.executions.values()) == 1, "none ran twice"
        for end in stage.host.ends:
            check(stage, chaos, end.task_id)
        assert not list((tmp_path / "state/started").iterdir())

    play(tmp_path, script)


def check(stage: Stage, chaos: Chaos, number: int) -> None:
    end = stage.host.told[key(number)]
    assert end.state is State.ENDED
    if number not in chaos.killed:
        assert (end.exit_code, end.killed, end.refused) == (chaos.codes[number], False, False), end
        assert stage.log(task_id=number) == b"a\nb\n"
    elif end.exit_code is not None:
        assert end.exit_code == chaos.codes[number] or (end.killed and end.exit_code in (137, 143))
        assert stage.log(task_id=number) in (b"a\nb\n", b"a\n", b"")
    assert end.stdout_bytes == (len(stage.log(task_id=number)) if stage.node.executions[key(number)] else 0)
