"""Who may use a VPS besides its owner: those it is assigned to, and whoever has its own key."""

import sqlite3
from dataclasses import replace

from kohakuriver.host.state import Host
from kohakuriver.host.store import assignments, audit, tasks
from kohakuriver.host.store import vps as rows
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import vps_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict
from kohakuriver.model.vps import GONE, SshKeyMode, Vps
from kohakuriver.model.vps_api import Assign, Assignment, Unassign, VpsId
from kohakuriver.wire.serve import on


async def list_people(host: Host, caller: Caller, asked: VpsId) -> list[Assignment]:
    def look(tx: sqlite3.Connection) -> list[Assignment]:
        rows.get(tx, asked.task_id)
        return assignments.of_vps(tx, asked.task_id)

    return await host.db.read(look)


async def assign(host: Host, caller: Caller, asked: Assign) -> list[Assignment]:
    def add(tx: sqlite3.Connection) -> list[Assignment]:
        vps, now = rows.get(tx, asked.task_id), host.clock.now()
        if vps.status in GONE:
            raise Conflict(f"VPS {vps.task_id} is {vps.status}; nothing is left of it")
        if asked.user == vps.owner:
            raise Conflict(f"user: VPS {vps.task_id} is {asked.user}'s own")
        assignments.add(tx, vps.task_id, asked.user, caller.name, now)
        audit.record(tx, caller, Deed("vps.assign", f"task:{vps.task_id}", asked.user), now)
        return assignments.of_vps(tx, vps.task_id)

    return await host.db.write(add)


async def unassign(host: Host, caller: Caller, asked: Unassign) -> list[Assignment]:
    """Whoever is inside just then is cut off."""

    def remove(tx: sqlite3.Connection) -> list[Assignment]:
        rows.get(tx, asked.task_id)
        user = assignments.remove(tx, asked.task_id, asked.user_id)
        audit.record(tx, caller, Deed("vps.unassign", f"task:{asked.task_id}", user), host.clock.now())
        return assignments.of_vps(tx, asked.task_id)

    left = await host.db.write(remove)
    await host.auth.uses.recheck(asked.task_id)
    return left


async def delete_key(host: Host, caller: Caller, asked: VpsId) -> Vps:
    """Whoever is inside by it just then is cut off."""

    def remove(tx: sqlite3.Connection) -> Vps:
        vps = rows.get(tx, asked.task_id)
        if vps.ssh_public_key is None:
            raise Conflict(f"VPS {vps.task_id} has no SSH key of its own")
        vps = replace(vps, ssh_public_key=None, ssh_key_mode=SshKeyMode.NONE)
        tasks.save(tx, vps)
        audit.record(tx, caller, Deed("vps.key.delete", f"task:{vps.task_id}"), host.clock.now())
        return vps

    vps = await host.db.write(remove)
    await host.auth.uses.recheck(asked.task_id)
    return vps


ANSWERS = [
    on(api.VPS_ASSIGNMENTS, list_people),
    on(api.VPS_ASSIGN, assign),
    on(api.VPS_UNASSIGN, unassign),
    on(api.VPS_KEY_DELETE, delete_key),
]
