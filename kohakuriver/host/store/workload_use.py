"""Who may be inside a workload."""

import sqlite3

from kohakuriver.host.store import assignments, tasks, vps
from kohakuriver.model.access import Caller, Role
from kohakuriver.model.codec import Snowflake


def may_use(tx: sqlite3.Connection, task_id: Snowflake, caller: Caller) -> bool:
    """Whether somebody may be inside; false for a workload that is not there."""
    owner = tasks.owner_of(tx, task_id)
    if owner is None:
        return False
    if caller.vps_key is not None:
        return caller.vps_key == task_id and vps.get(tx, task_id).ssh_public_key is not None
    return owner == caller.name or caller.role >= Role.OPERATOR or assignments.is_assigned(tx, task_id, caller.user_id)
