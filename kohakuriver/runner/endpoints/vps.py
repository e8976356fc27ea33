"""What the host asks about VPS: take one on, stop it, save it, take it away for good."""

from kohakuriver.model import runner_vps_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict
from kohakuriver.model.report import WorkloadState
from kohakuriver.model.runner_api import Execute, Kill, Nothing, TaskRef
from kohakuriver.model.vps import Snapshot, SnapshotId, TakeSnapshot
from kohakuriver.runner.attempt import STANDING
from kohakuriver.runner.state import Runner
from kohakuriver.system.engine import WorkloadKey
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


async def snapshots(runner: Runner, caller: Caller, asked: TaskRef) -> list[Snapshot]:
    return await runner.bench.snapshots.list(asked.task_id)


async def take_snapshot(runner: Runner, caller: Caller, asked: TakeSnapshot) -> Snapshot:
    """It may take minutes, so it goes on when the answer is given; the list tells how it ended."""
    saved, held = runner.bench.snapshots, runner.workloads.find(asked.task_id, None)
    if held is not None and held.state.state not in STANDING.values():
        raise Conflict(f"VPS {asked.task_id} is {held.state.state}; save it when it runs or is stopped")
    key = held.key if held is not None else await saved.latest_container(asked.task_id)
    announced = await saved.announce(asked.task_id, asked.message, automatic=False)
    runner.loops.spawn(f"snapshot of {asked.task_id}", saved.take_quietly(key, announced, held))
    return announced


async def delete_snapshot(runner: Runner, caller: Caller, asked: SnapshotId) -> Nothing:
    await runner.bench.snapshots.delete(asked.task_id, asked.timestamp)
    return Nothing()


async def tell_inside(runner: Runner, caller: Caller, asked: api.TellInside) -> Nothing:
    runner.terminals.tell(WorkloadKey(asked.task_id, asked.attempt), asked.text)
    return Nothing()


ANSWERS = [
    on(api.CREATE_VPS, take_on),
    on(api.RESTART_VPS, take_on),
    on(api.STOP_VPS, stop),
    on(api.DELETE_VPS, delete),
    on(api.SNAPSHOTS, snapshots),
    on(api.TAKE_SNAPSHOT, take_snapshot),
    on(api.DELETE_SNAPSHOT, delete_snapshot),
    on(api.TELL_INSIDE, tell_inside),
]
