"""What the host's endpoints and loops are given: every part of it, made once in `app`."""

from dataclasses import dataclass

from kohakuriver.host.auth.parts import Auth
from kohakuriver.host.auth.runner_keys import RunnerKeys
from kohakuriver.host.background.dispatch import Dispatch
from kohakuriver.host.background.key_rotation import KeyRotation
from kohakuriver.host.background.ssh import SshKeeper
from kohakuriver.host.services.environments import Environments
from kohakuriver.host.services.feed import Feed
from kohakuriver.host.services.ip_reservation import IPReservationManager
from kohakuriver.host.services.leases import IdleClocks
from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.services.task_scheduler import TaskScheduler
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.snowflake import Snowflakes
from kohakuriver.system.clock import Clock
from kohakuriver.system.files import Files
from kohakuriver.system.identity import Identity
from kohakuriver.system.loops import Loops
from kohakuriver.system.sqlite import Database
from kohakuriver.system.unfinished import Unfinished
from kohakuriver.wire.terminal_sessions import Sessions


@dataclass(frozen=True, slots=True)
class Host:
    """One host; two of them can live in one process."""

    settings: HostSettings
    cluster_id: str
    db: Database
    clock: Clock
    ids: Snowflakes
    loops: Loops
    registry: NodeRegistry
    scheduler: TaskScheduler
    dispatch: Dispatch
    auth: Auth
    keys: RunnerKeys
    key_rotation: KeyRotation
    environments: Environments
    files: Files
    shells: Sessions[str]
    unfinished: Unfinished
    ssh: SshKeeper
    overlay: OverlayNetworkManager
    reservations: IPReservationManager
    idle: IdleClocks
    feed: Feed
    identity: Identity | None = None
    url: str = ""
