"""What the host asks about VPS: take one on, stop it, take it away for good."""

from kohakuriver.model import runner_vps_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.runner_api import Execute, Kill, Nothing, TaskRef
from kohakuriver.runner.state import Runner
from kohakuriver.wire.serve import on


async def take_on(runner: Runner, caller: Caller, asked: Execute) -> WorkloadState:
    return await runner.workloads.accept(asked)


async def stop(runner: Runner, caller: Caller, asked: Kill) -> WorkloadState:
    return await runner.workloads.stop(asked)


async def delete(runner: Runner, caller: Caller, asked: TaskRef) -> Nothing:
    held = runner.workloads.find(asked.task_id, None)
    if held is not None and not held.departed:
        raise Conflict(f"VPS {asked.task_id} has not ended yet")
    await runner.bench.snapshots.discard(asked.task_id)
    return Nothing()


ANSWERS = [
    on(api.CREATE_VPS, take_on),
    on(api.RESTART_VPS, take_on),
    on(api.STOP_VPS, stop),
    on(api.DELETE_VPS, delete),
]
