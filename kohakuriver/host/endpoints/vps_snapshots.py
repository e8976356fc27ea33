"""Snapshots of VPS: they are on the node that has the files, so its runner is asked, and when it is away that is said."""

import sqlite3
from typing import TypeVar

from kohakuriver.host.state import Host
from kohakuriver.host.store import audit
from kohakuriver.host.store import vps as rows
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import runner_vps_api, vps_api
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NodeUnreachable, NotFound
from kohakuriver.model.route import Route
from kohakuriver.model.runner_api import Nothing, TaskRef
from kohakuriver.model.vps import GONE, Snapshot, SnapshotId, SnapshotState, TakeSnapshot, Vps
from kohakuriver.model.vps_api import VpsId
from kohakuriver.wire.serve import on

Q = TypeVar("Q")
R = TypeVar("R")
PATIENCE_SECONDS = 60.0


async def list_snapshots(host: Host, caller: Caller, asked: VpsId) -> list[Snapshot]:
    vps = await host.db.read(lambda tx: rows.get(tx, asked.task_id))
    if vps.home is None or vps.status in GONE:
        return []
    return await _ask(host, vps, runner_vps_api.SNAPSHOTS, TaskRef(task_id=asked.task_id))


async def take(host: Host, caller: Caller, asked: TakeSnapshot) -> Snapshot:
    vps = await _noted(host, caller, asked.task_id, Deed("vps.snapshot.create", f"task:{asked.task_id}", asked.message))
    return await _ask(host, vps, runner_vps_api.TAKE_SNAPSHOT, asked)


async def delete(host: Host, caller: Caller, asked: SnapshotId) -> Nothing:
    deed = Deed("vps.snapshot.delete", f"task:{asked.task_id}", str(asked.timestamp))
    vps = await _noted(host, caller, asked.task_id, deed)
    return await _ask(host, vps, runner_vps_api.DELETE_SNAPSHOT, asked)


async def check_there(host: Host, vps: Vps, timestamp: int) -> None:
    """Raise NotFound when there is no such snapshot; while the node is away nobody knows."""
    try:
        saved = await _ask(host, vps, runner_vps_api.SNAPSHOTS, TaskRef(task_id=vps.task_id))
    except NodeUnreachable:
        return
    if not any(each.timestamp == timestamp and each.state is SnapshotState.READY for each in saved):
        raise NotFound(f"VPS {vps.task_id} has no snapshot {timestamp}")


async def _noted(host: Host, caller: Caller, task_id: Snowflake, deed: Deed) -> Vps:
    """The VPS that somebody does something with, which is written down; raises Conflict when it has no files."""

    def note(tx: sqlite3.Connection) -> Vps:
        vps = rows.get(tx, task_id)
        if vps.home is None or vps.status in GONE:
            raise Conflict(f"VPS {task_id} is {vps.status} and has no files")
        audit.record(tx, caller, deed, host.clock.now())
        return vps

    return await host.db.write(note)


async def _ask(host: Host, vps: Vps, route: Route[Q, R], request: Q) -> R:
    assert vps.home is not None
    node = host.registry.nodes.get(vps.home)
    if node is None or not node.online:
        state = "is away" if node else "is not registered any more"
        raise NodeUnreachable(f"the snapshots of VPS {vps.task_id} are on node {vps.home}, which {state}")
    return await host.scheduler.peer_at(vps.home).call(route, request, timeout_seconds=PATIENCE_SECONDS)


ANSWERS = [
    on(vps_api.VPS_SNAPSHOTS, list_snapshots),
    on(vps_api.VPS_SNAPSHOT_TAKE, take),
    on(vps_api.VPS_SNAPSHOT_DELETE, delete),
]
