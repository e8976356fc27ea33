"""VPS: make them, find them, look at them, steer their lives."""

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kohakuriver.host.endpoints.tasks import (
    check_policy,
    check_targets,
    demand,
    digest_of,
    is_orphan,
    made_before,
    place_of,
    steer,
    want,
)
from kohakuriver.host.endpoints.vps_snapshots import check_there
from kohakuriver.host.services.leases import judge
from kohakuriver.host.services.quotas import check_submit, check_vps
from kohakuriver.host.services.workspace import CLEARED
from kohakuriver.host.state import Host
from kohakuriver.host.store import assignments, audit, task_secrets, tasks
from kohakuriver.host.store import vps as rows
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.tasks import Change, Shown
from kohakuriver.model import vps_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict
from kohakuriver.model.lifecycle import ON_NODE, Desired, Event, Status
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.public_key import read_public_key
from kohakuriver.model.task import WorkloadSpec, spec_values
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import GONE, WAIT_COMMAND, SshKeyMode, SubmitVps, Vps, vps_wish
from kohakuriver.model.vps_api import ExtendVps, FindVps, NewVps, RestartVps, VpsId
from kohakuriver.system.key_pair import make_key_pair
from kohakuriver.wire.serve import on

S = Status


async def create(host: Host, caller: Caller, asked: SubmitVps) -> NewVps:
    check_policy(host, caller, asked)
    private_key, public_key = None, asked.ssh_public_key
    if asked.ssh_key_mode is SshKeyMode.GENERATE:
        private_key, public_key = await asyncio.to_thread(make_key_pair)
    made, digest = _make_vps(host, caller, asked, public_key), digest_of(host, asked)

    def insert(tx: sqlite3.Connection) -> Vps:
        if earlier := made_before(tx, caller, asked, digest, made.task_id):
            return _shown_anew(tx, rows.get(tx, earlier[0]), made.ssh_public_key)
        check_targets(tx, [made.target] if made.target else [])
        rows.check_name(tx, caller.name, made.name)
        check_submit(tx, caller.name, [demand(made)])
        check_vps(tx, caller.name)
        tasks.insert(tx, made, caller.name)
        task_secrets.keep(tx, made.task_id, asked)
        if asked.ip_reservation_token is not None:
            host.reservations.claim(tx, caller.name, asked.ip_reservation_token, made.task_id)
        audit.record(tx, caller, Deed("vps.create", f"task:{made.task_id}", made.name or ""), host.clock.now())
        return made

    return NewVps(vps=await steer(host, insert), private_key=private_key)


def _shown_anew(tx: sqlite3.Connection, vps: Vps, public_key: str | None) -> Vps:
    """What was made before; whoever asks again did not get the private key, so that there is another pair now."""
    if vps.ssh_public_key != public_key:
        vps = replace(vps, ssh_public_key=public_key)
        tasks.save(tx, vps)
    return vps


def _make_vps(host: Host, caller: Caller, asked: SubmitVps, public_key: str | None) -> Vps:
    task_id, (command, *arguments) = host.ids.next(), WAIT_COMMAND
    kept = read_public_key(public_key).text if public_key else None
    wish: dict[str, Any] = {**vps_wish(asked), "ssh_public_key": kept}
    return Vps(
        task_id=task_id,
        batch_id=task_id,
        owner=caller.name,
        command=command,
        arguments=arguments,
        target=place_of(host, asked.ip_reservation_token, asked.target),
        status=S.PENDING,
        submitted_at=rfc3339(host.clock.now()),
        secret_names=sorted(asked.secret_env),
        **wish,
        **spec_values(asked, WorkloadSpec),
    )


async def list_vps(host: Host, caller: Caller, asked: ListAll) -> list[Vps]:
    wanted = {"status": asked.status, "node": asked.node, "owner": asked.owner}

    def look(tx: sqlite3.Connection) -> list[Shown]:
        if caller.sees_all:
            return rows.page(tx, wanted, asked.before, asked.limit)
        return rows.of_caller(tx, caller, wanted | {"before": asked.before}, asked.limit)

    return _told(host, await host.db.read(look))


async def list_my_vps(host: Host, caller: Caller, asked: ListMine) -> list[Vps]:
    wanted = {"status": asked.status, "before": asked.before}
    return _told(host, await host.db.read(lambda tx: rows.of_caller(tx, caller, wanted, asked.limit)))


async def find(host: Host, caller: Caller, asked: FindVps) -> VpsId:
    return VpsId(task_id=await host.db.read(lambda tx: rows.id_of(tx, caller, asked.name)))


async def show(host: Host, caller: Caller, asked: VpsId) -> Vps:
    return _told(host, [await host.db.read(lambda tx: rows.show(tx, asked.task_id))])[0]


def _told(host: Host, found: Sequence[Shown]) -> list[Vps]:
    """Rows as they are shown: with why they wait, for how long nobody used them, and what is about to happen."""
    return [_told_one(host, rows.vps_of(row), host.dispatch.explain(row)) for row in found]


def _told_one(host: Host, vps: Vps, reason: str | None) -> Vps:
    idle_seconds = host.idle.seconds(vps.task_id, host.clock.monotonic()) if vps.status in ON_NODE else None
    notice = judge(vps, idle_seconds, host.clock.now()).notice if vps.status in ON_NODE else ""
    return replace(vps, reason=reason, idle_seconds=idle_seconds, notice=notice or None)


async def extend(host: Host, caller: Caller, asked: ExtendVps) -> Vps:
    """Its lease ends so long from now, and whoever is in it counts as active just now."""

    def prolong(tx: sqlite3.Connection) -> Vps:
        now = host.clock.now()
        vps = _steered(tx, caller, asked.task_id, "vps.extend", now)
        if vps.lease_seconds is None and vps.idle_stop_seconds is None:
            raise Conflict(f"VPS {vps.task_id} has neither lease nor idle stop: nothing ends it by itself")
        if vps.status not in ON_NODE or vps.desired is Desired.STOP:
            raise Conflict(f"VPS {vps.task_id} does not run; its lease begins anew when it is restarted")
        if vps.lease_seconds is not None:
            vps = replace(vps, expires_at=rfc3339(now + asked.seconds))
            tasks.save(tx, vps)
        return vps

    vps = await host.db.write(prolong)
    host.idle.look(vps.task_id, True, host.clock.monotonic())
    return _told_one(host, vps, None)


async def stop(host: Host, caller: Caller, asked: VpsId) -> Vps:
    """The intent is written down, and the dispatch carries it out; one that only waits to start is stopped at once."""

    def intend(tx: sqlite3.Connection) -> Vps:
        vps = _steered(tx, caller, asked.task_id, "vps.stop", host.clock.now())
        if vps.status is S.PENDING and vps.home:
            change = Change(Event.STOPPED, {"assigned_node": vps.home, "restore": None}, by=caller.name)
            return _vps(tasks.move(tx, vps, change, host.clock.now()))
        if vps.status in (S.PENDING, S.ASSIGNING):
            raise Conflict(f"VPS {vps.task_id} is only about to start; delete it if nobody wants it")
        if vps.status is S.STOPPED:
            raise Conflict(f"VPS {vps.task_id} is stopped already")
        return _want_stop(tx, replace(vps, again=False), caller.name, host.clock.now())

    return await steer(host, intend)


async def restart(host: Host, caller: Caller, asked: RestartVps) -> Vps:
    """A stopped one starts again on its node; one that runs is stopped first, if what it shall go on from is there."""
    if asked.snapshot is not None:
        before = await host.db.read(lambda tx: rows.get(tx, asked.task_id))
        if before.home is not None and before.status not in GONE:
            await check_there(host, before, asked.snapshot)

    def intend(tx: sqlite3.Connection) -> Vps:
        vps, now = (_steered(tx, caller, asked.task_id, "vps.restart", host.clock.now()), host.clock.now())
        if vps.status in (S.RUNNING, S.PAUSED):
            return _want_stop(tx, replace(vps, again=True, restore=asked.snapshot), caller.name, now)
        if vps.status is not S.STOPPED:
            raise Conflict(f"VPS {vps.task_id} is {vps.status}; only one that runs or is stopped can be restarted")
        check_vps(tx, vps.owner)
        change = Change(Event.RESTARTED, CLEARED | {"restore": asked.snapshot}, by=caller.name)
        return _vps(tasks.move(tx, vps, change, now))

    return await steer(host, intend)


async def delete(host: Host, caller: Caller, asked: VpsId) -> Vps:
    """At once where no node can have anything of it; else the dispatch has its node take everything away first."""

    def intend(tx: sqlite3.Connection) -> Vps:
        vps, now = rows.get(tx, asked.task_id), host.clock.now()
        if vps.status in GONE:
            raise Conflict(f"VPS {vps.task_id} is {vps.status} already")
        audit.record(tx, caller, Deed("vps.delete", f"task:{vps.task_id}", vps.name or ""), now)
        assignments.forget(tx, vps.task_id)
        waits = vps.status is S.PENDING
        if (waits and vps.home is None) or is_orphan(host, vps) or _lost_its_home(host, vps):
            values = {"desired": Desired.KILL, "completed_at": rfc3339(now)}
            return _vps(tasks.move(tx, vps, Change(Event.KILLED, values, by=caller.name), now))
        if waits:
            change = Change(Event.STOPPED, {"assigned_node": vps.home}, by=caller.name)
            vps = _vps(tasks.move(tx, vps, change, now))
        return _vps(tasks.intend(tx, vps, Desired.KILL, caller.name, now))

    return await steer(host, intend)


def _lost_its_home(host: Host, vps: Vps) -> bool:
    return vps.status not in ON_NODE and vps.home is not None and vps.home not in host.registry.nodes


async def pause(host: Host, caller: Caller, asked: VpsId) -> Vps:
    return await _freeze(host, caller, asked, Desired.PAUSE)


async def resume(host: Host, caller: Caller, asked: VpsId) -> Vps:
    return await _freeze(host, caller, asked, Desired.RUN)


async def _freeze(host: Host, caller: Caller, asked: VpsId, desired: Desired) -> Vps:
    await host.db.read(lambda tx: rows.get(tx, asked.task_id))
    return _vps(await want(host, caller, asked.task_id, desired, "vps"))


def _steered(tx: sqlite3.Connection, caller: Caller, task_id: Snowflake, action: str, now: float) -> Vps:
    """The VPS that somebody wants something of; raises Conflict when it is gone or about to be."""
    vps = rows.get(tx, task_id)
    if vps.status in GONE:
        raise Conflict(f"VPS {task_id} is {vps.status}; nothing is left of it")
    if vps.desired is Desired.KILL:
        raise Conflict(f"VPS {task_id} is being deleted")
    audit.record(tx, caller, Deed(action, f"task:{task_id}"), now)
    return vps


def _want_stop(tx: sqlite3.Connection, vps: Vps, by: str, now: float) -> Vps:
    tasks.save(tx, vps)  # what else changed, even if it is being stopped already
    return _vps(tasks.intend(tx, vps, Desired.STOP, by, now))


def _vps(task: Any) -> Vps:
    assert isinstance(task, Vps)
    return task


ANSWERS = [
    on(api.VPS_CREATE, create),
    on(api.VPS_LIST, list_vps),
    on(api.VPS_MY, list_my_vps),
    on(api.VPS_FIND, find),
    on(api.VPS_SHOW, show),
    on(api.VPS_STOP, stop),
    on(api.VPS_RESTART, restart),
    on(api.VPS_PAUSE, pause),
    on(api.VPS_RESUME, resume),
    on(api.VPS_DELETE, delete),
    on(api.VPS_EXTEND, extend),
]
