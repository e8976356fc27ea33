"""Workloads on nodes of which no row tells, as after an old database was restored: shown, and removed on an admin's word."""

from kohakuriver.host.services.task_scheduler import DELETE_SECONDS
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import host_api, runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotFound
from kohakuriver.model.host_api import Hostname, Orphan, OrphanRef
from kohakuriver.model.report import Claim, WorkloadState
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import VPS_TYPE
from kohakuriver.wire.serve import on


async def list_orphans(host: Host, caller: Caller, asked: Hostname) -> list[Orphan]:
    return [_shown(state) for state in host.registry.get(asked.hostname).orphans]


async def remove(host: Host, caller: Caller, asked: OrphanRef) -> Nothing:
    """Only what the latest report names and no row knows: whatever else runs there is out of reach."""
    found = [each for each in host.registry.get(asked.hostname).orphans if each.task_id == asked.task_id]
    if not found:
        raise NotFound(f"node {asked.hostname} has no workload {asked.task_id} that the host knows nothing of")
    deed = Deed("node.orphan.remove", f"task:{asked.task_id}", f"on {asked.hostname}")
    await host.db.write(lambda tx: audit.record(tx, caller, deed, host.clock.now()))
    for state in found:
        attempt = runner_api.Attempt(task_id=state.task_id, attempt=state.attempt)
        await host.scheduler.peer_at(asked.hostname).call(runner_api.DISCARD, attempt, DELETE_SECONDS)
    return Nothing()


def _shown(state: WorkloadState) -> Orphan:
    claim = state.claim or Claim(owner="")
    return Orphan(
        task_id=state.task_id,
        attempt=state.attempt,
        state=state.state,
        task_type=VPS_TYPE if claim.is_vps else "command",
        owner=claim.owner,
        name=claim.name,
        started_at=rfc3339(state.started_at) if state.started_at else None,
    )


ANSWERS = [on(host_api.NODE_ORPHANS, list_orphans), on(host_api.NODE_ORPHAN_REMOVE, remove)]
