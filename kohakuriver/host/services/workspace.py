"""What is different when the task whose life goes on is a VPS: it ends by stopping, and can be started again; pure."""

from collections.abc import Mapping
from typing import Any

from kohakuriver.host.store.tasks import Change
from kohakuriver.model.lifecycle import Desired, Event
from kohakuriver.model.runner_api import VpsOrder
from kohakuriver.model.task import Task
from kohakuriver.model.units import rfc3339
from kohakuriver.model.vps import Vps

# What is no longer true of a task that goes back into the queue.
CLEARED: dict[str, Any] = {
    "assigned_node": None,
    "assigned_gpus": [],
    "assigned_numa": None,
    "assigned_ip": None,
    "assigned_store": None,
    "started_at": None,
    "completed_at": None,
    "image_digest": None,
    "exit_code": None,
    "signal": None,
    "error_message": None,
    "stdout_bytes": 0,
    "stderr_bytes": 0,
    "desired": Desired.RUN,
}


def order_of(vps: Vps) -> VpsOrder:
    """What its runner must know of an attempt beyond what it knows of any task's."""
    return VpsOrder(is_new=vps.home is None, restore=vps.restore, watch_use=vps.idle_stop_seconds is not None)


def facts_of_start(task: Task, now: float) -> dict[str, Any]:
    """What becomes known when it runs: it came there; of a VPS, its files are there from now on, and its lease begins."""
    facts: dict[str, Any] = {"assigned_store": None}
    if not isinstance(task, Vps):
        return facts
    facts |= {"home": task.assigned_node, "restore": None}
    if task.lease_seconds and not task.expires_at:
        facts["expires_at"] = rfc3339(now + task.lease_seconds)
    return facts


def stopped(vps: Vps, values: Mapping[str, Any], why: str | None) -> Change:
    """Whatever ended it: it is stopped, and stays on its node until it is deleted; that wish alone stays."""
    wish = Desired.KILL if vps.desired is Desired.KILL else Desired.RUN
    kept: dict[str, Any] = {"desired": wish, "assigned_gpus": [], "assigned_numa": None, "expires_at": None}
    return Change(Event.STOPPED, {**values, **kept}, why)


def after_end(task: Task, end: Change) -> list[Change]:
    """The end, and what is to follow at once."""
    if isinstance(task, Vps) and task.again and end.event is Event.STOPPED and task.desired is not Desired.KILL:
        return [end, Change(Event.RESTARTED, CLEARED | {"again": False})]
    return [end]
