"""What the host asks about attempts: take one on, end it, freeze it, thaw it."""

from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.runner_api import Attempt, Execute, Kill, Nothing
from kohakuriver.runner.state import Runner
from kohakuriver.wire.serve import on


async def execute(runner: Runner, caller: Caller, asked: Execute) -> WorkloadState:
    return await runner.workloads.accept(asked)


async def kill(runner: Runner, caller: Caller, asked: Kill) -> WorkloadState:
    return await runner.workloads.kill(asked)


async def pause(runner: Runner, caller: Caller, asked: Attempt) -> WorkloadState:
    return await runner.workloads.pause(asked)


async def resume(runner: Runner, caller: Caller, asked: Attempt) -> WorkloadState:
    return await runner.workloads.resume(asked)


async def discard(runner: Runner, caller: Caller, asked: Attempt) -> Nothing:
    await runner.workloads.discard(asked)
    return Nothing()


ANSWERS = [
    on(runner_api.EXECUTE, execute),
    on(runner_api.KILL, kill),
    on(runner_api.PAUSE, pause),
    on(runner_api.RESUME, resume),
    on(runner_api.DISCARD, discard),
]
