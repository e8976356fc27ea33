"""The host's composition root: every part is made here, once, and handed down."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from kohakuriver import __version__
from kohakuriver.host.auth.accounts import Accounts
from kohakuriver.host.auth.bootstrap import prepare
from kohakuriver.host.auth.notes import Notes
from kohakuriver.host.auth.parts import Auth
from kohakuriver.host.auth.passwords import Passwords
from kohakuriver.host.auth.runner_keys import RunnerKeys
from kohakuriver.host.auth.throttle import attempts
from kohakuriver.host.auth.tickets import Tickets
from kohakuriver.host.auth.uses import Uses
from kohakuriver.host.background.accounts import AccountsKeeper
from kohakuriver.host.background.approvals import ApprovalExpiry
from kohakuriver.host.background.dispatch import Dispatch
from kohakuriver.host.background.gangs import GangKeeper
from kohakuriver.host.background.health import HealthCheck
from kohakuriver.host.background.key_rotation import KeyRotation
from kohakuriver.host.background.leases import LOOK_SECONDS as LEASES_INTERVAL_SECONDS
from kohakuriver.host.background.leases import LeaseKeeper
from kohakuriver.host.background.log_keeper import LogKeeper
from kohakuriver.host.background.reservations import ReservationExpiry
from kohakuriver.host.background.runner_monitor import RunnerMonitor
from kohakuriver.host.background.ssh import SshKeeper
from kohakuriver.host.console import identity_of, url_on_this_machine
from kohakuriver.host.endpoints import (
    accounts,
    approvals,
    audit,
    auth,
    container_filesystem,
    docker,
    environment_terminal,
    events,
    filesystem,
    health,
    joining,
    node_images,
    nodes,
    orphans,
    overlay,
    sockets,
    ssh,
    streams,
    tasks,
    vps,
    vps_people,
    vps_snapshots,
)
from kohakuriver.host.endpoints.access import edge_of, refuse_open_door
from kohakuriver.host.services.claims import Claims
from kohakuriver.host.services.environments import Environments
from kohakuriver.host.services.feed import Feed
from kohakuriver.host.services.image_work import ImageWork
from kohakuriver.host.services.ip_reservation import IPReservationManager, token_key
from kohakuriver.host.services.leases import IdleClocks
from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.services.ssh.runner_inside import RunnerInside
from kohakuriver.host.services.tarballs import Tarballs
from kohakuriver.host.services.task_scheduler import Outbox, TaskScheduler
from kohakuriver.host.state import Host
from kohakuriver.host.store import facts, schema, users
from kohakuriver.host.store import nodes as node_rows
from kohakuriver.host.store import tasks as task_rows
from kohakuriver.model import host_api
from kohakuriver.model.image import TARBALL_FOLDER
from kohakuriver.model.policy import policy_of
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.snowflake import Snowflakes
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_environments import EnvironmentContainers
from kohakuriver.system.docker_images import Images
from kohakuriver.system.files import Files
from kohakuriver.system.kept_logs import Keep
from kohakuriver.system.loops import Loops, Wake
from kohakuriver.system.netlink_watch import ring_on_changes
from kohakuriver.system.notify import Notifier
from kohakuriver.system.secrets import make_secret
from kohakuriver.system.sqlite import Database
from kohakuriver.system.unfinished import SWEEP_SECONDS as UNFINISHED_SECONDS
from kohakuriver.system.unfinished import Unfinished
from kohakuriver.system.watchdog import start_watchdog
from kohakuriver.wire.joining import MASTER_FILE
from kohakuriver.wire.listen import listening
from kohakuriver.wire.peers import RunnerPeers
from kohakuriver.wire.serve import Bindable, build_app
from kohakuriver.wire.sign import SteadyTime, Verifier
from kohakuriver.wire.terminal_sessions import SWEEP_SECONDS, Sessions

log = logging.getLogger(__name__)
ANSWERS: list[Bindable[Host]] = [
    *tasks.ANSWERS,
    *approvals.ANSWERS,
    *nodes.ANSWERS,
    *orphans.ANSWERS,
    *health.ANSWERS,
    *streams.ANSWERS,
    *filesystem.ANSWERS,
    *container_filesystem.ANSWERS,
    *container_filesystem.CHANNELS,
    *filesystem.CHANNELS,
    *auth.ANSWERS,
    *accounts.ANSWERS,
    *audit.ANSWERS,
    *joining.ANSWERS,
    *sockets.CHANNELS,
    *events.CHANNELS,
    *overlay.ANSWERS,
    *ssh.ANSWERS,
    *docker.ANSWERS,
    *environment_terminal.CHANNELS,
    *node_images.ANSWERS,
    *vps.ANSWERS,
    *vps_snapshots.ANSWERS,
    *vps_people.ANSWERS,
]
DISPATCH_INTERVAL_SECONDS = 1.0
MONITOR_INTERVAL_SECONDS = 10.0
ACCOUNTS_INTERVAL_SECONDS, NOTES_INTERVAL_SECONDS, APPROVALS_INTERVAL_SECONDS = 30.0, 1.0, 60.0
OVERLAY_INTERVAL_SECONDS, RESERVATIONS_INTERVAL_SECONDS = 60.0, 5.0
GANGS_INTERVAL_SECONDS, PROGRESS_INTERVAL_SECONDS = 1.0, 2.0
KEYS_INTERVAL_SECONDS, LOGS_INTERVAL_SECONDS, SCRUB_INTERVAL_SECONDS = 10.0, 600.0, 10.0
MARKER = ".kohakuriver-cluster"


@asynccontextmanager
async def running_host(settings: HostSettings, clock: Clock) -> AsyncIterator[Host]:
    """A host that serves until the block ends; it leaves runners and their workloads as they are.

    Raises BadRequest for settings that would make everybody in the network admin.
    """
    refuse_open_door(settings)
    state_dir = Path(settings.state_dir).expanduser()
    async with AsyncExitStack() as stack:
        db = await asyncio.to_thread(_open_store, settings, state_dir)
        stack.push_async_callback(asyncio.to_thread, db.close)
        keys = await _make_keys(settings, state_dir, db)
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=32)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        host = await _assemble(settings, clock, keys, RunnerPeers(http, keys.to))
        await asyncio.to_thread(_mark_shared_storage, settings, host.cluster_id)
        verifier = Verifier(keys.find, SteadyTime(), keys.find_former)
        app = build_app((*host_api.ROUTES, *host_api.CHANNELS), ANSWERS, edge_of(host, verifier))
        try:
            tls = await asyncio.to_thread(host.identity.context) if host.identity else None
            async with listening(app, settings.host_bind_ip, settings.host_port, tls) as port:
                _start_loops(host)
                await host.environments.begin()
                yield replace(host, url=url_on_this_machine(settings, port, host.identity))
        finally:
            await host.loops.stop()
            await host.shells.close()
            await host.environments.work.close()
            host.files.close()
            await asyncio.to_thread(host.auth.passwords.close)
            await asyncio.to_thread(host.overlay.close)


async def serve(settings: HostSettings) -> None:
    """Run a host until SIGTERM or SIGINT, and tell the service manager how it is."""
    clock, stop = SystemClock(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notifier = Notifier.from_environment(os.environ)
    async with running_host(settings, clock) as host:
        start_watchdog(host.loops, clock, notifier, lambda: host.db.read(facts.ping))
        notifier.ready(f"serving {host.url}")
        log.info("host is ready url=%s version=%s cluster=%s", host.url, __version__, host.cluster_id)
        await stop.wait()
        notifier.stopping()
        log.info("host stops; runners and tasks go on")


def _open_store(settings: HostSettings, state_dir: Path) -> Database:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = Path(settings.db_file).expanduser() if settings.db_file else state_dir / "host.db"
    return Database(path, schema.MIGRATIONS)


async def _make_keys(settings: HostSettings, state_dir: Path, db: Database) -> RunnerKeys:
    shared = Path(settings.cluster_secret_file).expanduser()
    keys = RunnerKeys(
        db=db,
        master=await asyncio.to_thread(make_secret, state_dir / MASTER_FILE),
        cluster_id=await db.write(facts.cluster_id),
        shared=await asyncio.to_thread(make_secret, shared) if settings.cluster_secret_allowed else None,
    )
    await keys.load()
    return keys


async def _assemble(settings: HostSettings, clock: Clock, keys: RunnerKeys, peers: RunnerPeers) -> Host:
    db = keys.db
    last_id = await db.read(task_rows.last_id)
    registry = NodeRegistry(await db.read(node_rows.every), clock.monotonic())
    loops = Loops(clock)
    ids = Snowflakes(clock.now, random.SystemRandom().getrandbits(10), last_id)
    environments = Environments(_make_image_work(settings, clock, keys), ids)
    auth = await _make_auth(settings, clock, db, loops)
    network = OverlayNetworkManager(settings, db, registry, clock)
    await network.load()
    reservations = IPReservationManager(network, token_key(keys.master), random.SystemRandom().getrandbits)
    scheduler = TaskScheduler(
        db=db,
        registry=registry,
        peers=peers,
        clock=clock,
        outbox=Outbox(since=clock.monotonic()),
        tarballs=environments.tarballs,
        claims=Claims.under(keys.master),
        heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
        kill_grace_seconds=settings.kill_grace_seconds,
    )
    return Host(
        settings=settings,
        cluster_id=keys.cluster_id,
        db=db,
        clock=clock,
        ids=ids,
        loops=loops,
        registry=registry,
        scheduler=scheduler,
        dispatch=Dispatch(db, registry, scheduler, loops, clock, Wake(), reservations),
        auth=auth,
        keys=keys,
        key_rotation=KeyRotation(keys, scheduler, clock),
        ssh=SshKeeper(settings, auth, db, loops, RunnerInside(db, registry, peers)),
        overlay=network,
        reservations=reservations,
        identity=await asyncio.to_thread(identity_of, settings),
        environments=environments,
        files=Files(),
        shells=Sessions(clock.monotonic, loops.spawn, settings.terminal_keep_seconds),
        unfinished=Unfinished(Path(settings.state_dir).expanduser() / "unfinished", clock),
        idle=IdleClocks(),
        feed=Feed(db, clock),
    )


def _make_image_work(settings: HostSettings, clock: Clock, keys: RunnerKeys) -> ImageWork:
    client = DockerClient(settings.docker_socket)
    folder = Path(settings.shared_dir or settings.state_dir).expanduser() / TARBALL_FOLDER
    return ImageWork(
        settings=settings,
        db=keys.db,
        clock=clock,
        client=client,
        containers=EnvironmentContainers(client, keys.cluster_id),
        images=Images(client),
        tarballs=Tarballs(folder),
    )


async def _make_auth(settings: HostSettings, clock: Clock, db: Database, loops: Loops) -> Auth:
    accounts_known = Accounts(db, clock)
    await accounts_known.load()
    has_users = await db.read(users.were_there_any)
    if not settings.auth_enabled:
        log.warning("ACCOUNTS ARE OFF (AUTH_ENABLED): whoever reaches %s is admin", settings.host_bind_ip or "the port")
    return Auth(
        enabled=settings.auth_enabled,
        accounts=accounts_known,
        attempts=attempts(clock.monotonic),
        bootstrap=await asyncio.to_thread(prepare, settings, Path(settings.state_dir).expanduser(), has_users),
        notes=Notes(db, clock),
        passwords=Passwords(),
        policy=policy_of(settings.policy, settings.tasks_privileged),
        tickets=Tickets(accounts_known, clock),
        uses=Uses(db, loops.spawn),
    )


def _start_loops(host: Host) -> None:
    check = HealthCheck(host.settings, host.registry, host.scheduler, host.clock, host.dispatch.wake)
    expiry = ApprovalExpiry(host.settings, host.db, host.clock)
    keeper = AccountsKeeper(host.settings, host.auth, host.db, host.clock)
    monitor = RunnerMonitor(host.db, host.registry, host.scheduler, host.clock, {})
    host.loops.start("dispatch", host.dispatch.step, DISPATCH_INTERVAL_SECONDS, host.dispatch.wake)
    host.loops.start("health", check.step, check.period_seconds)
    host.loops.start("runner-monitor", monitor.step, MONITOR_INTERVAL_SECONDS)
    gangs = GangKeeper(host.db, host.clock, host.dispatch.wake)
    host.loops.start("gangs", gangs.step, GANGS_INTERVAL_SECONDS)
    if host.overlay.enabled:
        host.loops.start("overlay", host.overlay.step, OVERLAY_INTERVAL_SECONDS, host.overlay.wake)
        host.loops.run("network changes", lambda: ring_on_changes(host.overlay.wake, host.clock))
        reservations = ReservationExpiry(host.db, host.clock)
        host.loops.start("reservations", reservations.step, RESERVATIONS_INTERVAL_SECONDS)
    host.loops.start("approvals", expiry.step, APPROVALS_INTERVAL_SECONDS)
    host.loops.start("keys", host.key_rotation.step, KEYS_INTERVAL_SECONDS)
    host.loops.start("accounts", keeper.sweep, ACCOUNTS_INTERVAL_SECONDS)
    host.loops.run("image work", host.environments.work.keep_working)
    host.loops.start("image progress", host.environments.work.tell_progress, PROGRESS_INTERVAL_SECONDS)
    leases = LeaseKeeper(
        host.db, host.registry, host.auth.uses, host.idle, host.clock, host.dispatch.wake, host.scheduler.tell_inside
    )
    host.loops.start("leases", leases.step, LEASES_INTERVAL_SECONDS)
    host.loops.start("unfinished files", lambda: container_filesystem.sweep(host), UNFINISHED_SECONDS)
    host.loops.start("shells", lambda: host.shells.sweep(lambda name: False), SWEEP_SECONDS)
    host.loops.start("scrub", host.db.scrub, SCRUB_INTERVAL_SECONDS)
    host.loops.start("notes", keeper.note, NOTES_INTERVAL_SECONDS)
    host.loops.run("events", host.feed.keep_reading)
    keep = Keep(host.settings.log_keep_days, host.settings.log_keep_bytes)
    if host.settings.shared_dir and keep.is_limited:
        logs = LogKeeper(Path(host.settings.shared_dir).expanduser() / "logs", keep, host.db, host.clock)
        host.loops.start("logs", logs.step, LOGS_INTERVAL_SECONDS)
    if host.settings.host_ssh_proxy_port:
        host.loops.run("ssh", host.ssh.listen)


def _mark_shared_storage(settings: HostSettings, cluster_id: str) -> None:
    """Runners know by this file that their SHARED_DIR and ours are the same storage."""
    if settings.shared_dir:
        shared = Path(settings.shared_dir).expanduser()
        (shared / "logs").mkdir(parents=True, exist_ok=True)
        (shared / "shared_data").mkdir(exist_ok=True)
        (shared / MARKER).write_text(cluster_id + "\n")
