"""The runner's composition root: every part is made here, once, and handed down."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiohttp

from kohakuriver import __version__
from kohakuriver.model import runner_table
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.report import State
from kohakuriver.model.route import Entry
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import mounts
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.cluster import Cluster
from kohakuriver.runner.disk import Disk
from kohakuriver.runner.endpoints import files, forwards, health, key, ssh, streams, terminals, tunnels, vps, workloads
from kohakuriver.runner.endpoints import images as image_answers
from kohakuriver.runner.endpoints.access import guard, identifier
from kohakuriver.runner.engine_slot import EngineSlot
from kohakuriver.runner.engines import check_engine_allowed, make_engine
from kohakuriver.runner.host_keys import HostKeys
from kohakuriver.runner.host_link import HostLink
from kohakuriver.runner.image_garbage import COLLECT_SECONDS, Garbage, percent_used
from kohakuriver.runner.image_ledger import ImageLedger
from kohakuriver.runner.images import Images
from kohakuriver.runner.log_keeper import LogKeeper
from kohakuriver.runner.marks import Marks
from kohakuriver.runner.membership import Belonging, belonging
from kohakuriver.runner.node_name import hostname_of, place_of, url_of
from kohakuriver.runner.outputs import Outputs
from kohakuriver.runner.overlay import Overlay
from kohakuriver.runner.plain_network import PlainNetwork
from kohakuriver.runner.shared_storage import SharedStorage
from kohakuriver.runner.snapshots import Snapshots
from kohakuriver.runner.state import Runner
from kohakuriver.runner.store import Store
from kohakuriver.runner.tarball_fetch import TarballFetch
from kohakuriver.runner.terminals import Terminals
from kohakuriver.runner.tunnel_door import TunnelDoor
from kohakuriver.runner.use import LOOK_SECONDS as USE_SECONDS
from kohakuriver.runner.use import UseWatch
from kohakuriver.runner.vitals import Senses, Vitals
from kohakuriver.runner.ways import Ways
from kohakuriver.runner.whereabouts import Whereabouts
from kohakuriver.runner.workloads import FORGET_SECONDS, Workloads
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.engine import Engine
from kohakuriver.system.files import Files
from kohakuriver.system.image_archive import Limits
from kohakuriver.system.kept_logs import Keep
from kohakuriver.system.loops import Loops
from kohakuriver.system.machine import Sampler
from kohakuriver.system.netlink_watch import ring_on_changes
from kohakuriver.system.notify import Notifier
from kohakuriver.system.secrets import make_secret
from kohakuriver.system.unfinished import SWEEP_SECONDS as UNFINISHED_SECONDS
from kohakuriver.system.unfinished import Unfinished
from kohakuriver.system.watchdog import start_watchdog
from kohakuriver.wire.call import Peer
from kohakuriver.wire.listen import open_door
from kohakuriver.wire.pinning import context_for
from kohakuriver.wire.serve import Bindable, Edge, build_app
from kohakuriver.wire.sign import Signer, SteadyTime, Verifier
from kohakuriver.wire.terminal_sessions import SWEEP_SECONDS

__all__ = ["make_engine", "running_runner", "serve"]

log = logging.getLogger(__name__)
ANSWERS: list[Bindable[Runner]] = [
    *workloads.ANSWERS,
    *vps.ANSWERS,
    *streams.ANSWERS,
    *files.ANSWERS,
    *files.CHANNELS,
    *health.ANSWERS,
    *key.ANSWERS,
    *image_answers.ANSWERS,
    *terminals.CHANNELS,
    *forwards.CHANNELS,
    *tunnels.CHANNELS,
    *ssh.ANSWERS,
]
TUNNEL_SECRET_FILE = "tunnel_secret"
STATUS_SECONDS = 10.0
OVERLAY_SECONDS, LOGS_SECONDS, SCRUB_SECONDS = 60.0, 600.0, 10.0
WHEREABOUTS_SECONDS = 10.0
EVERYWHERE = "0.0.0.0"
SHARED_STORAGE_SECONDS = 15.0
DISK_THREADS, READING_THREADS, IMAGE_THREADS, SFTP_THREADS = 4, 4, 2, 4
SPAWN_LIMIT = 100_000


@asynccontextmanager
async def running_runner(
    settings: RunnerSettings, engine: Engine | None, clock: Clock, senses: Senses | None = None
) -> AsyncIterator[Runner]:
    """A runner that serves until the block ends; it leaves workloads as they are.

    Without an `engine` it is the one that the settings name, without `senses` the machine is the real one. Raises
    NotFound or NotAllowed for a secret or an engine that cannot be used, OSError when the port is taken.
    """
    if engine is None:
        check_engine_allowed(settings)
    slot = EngineSlot(lambda cluster_id: engine or make_engine(settings, cluster_id))
    belongs = await asyncio.to_thread(belonging, settings)
    settings = belongs.settings
    async with AsyncExitStack() as stack:
        bench = await _make_bench(settings, slot, clock, stack)
        runner = await _assemble(bench, belongs, senses, stack)
        verifier = Verifier(runner.host_keys.of_caller, SteadyTime(), runner.host_keys.coming_of_caller)
        table: tuple[Entry, ...] = (*runner_table.ROUTES, *runner_table.CHANNELS)
        app = build_app(table, ANSWERS, Edge(runner, identifier(verifier, bench.door), guard))
        await runner.workloads.restore()
        place = await asyncio.to_thread(place_of, settings)
        tls = await asyncio.to_thread(belongs.identity.context) if belongs.identity else None
        # While there is no way to the host, nobody knows yet by which address it comes.
        door = await stack.enter_async_context(open_door(app, place.bind or EVERYWHERE, settings.runner_port, tls))
        where = Whereabouts(settings, door, runner.link, "https" if tls else "http")
        runner = replace(runner, url=where.url_of(place))
        bench.door.url = runner.url
        bench.door.fingerprint = belongs.identity.own_fingerprint if belongs.identity else ""
        stack.callback(bench.closing.set)
        await _start_loops(runner, waits_for_cluster=engine is None)
        runner.loops.start("whereabouts", where.step, WHEREABOUTS_SECONDS)
        yield runner


async def serve(settings: RunnerSettings) -> None:
    """Run a runner until SIGTERM or SIGINT, and tell the service manager how it is."""
    clock, stop = SystemClock(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notifier = Notifier.from_environment(os.environ)
    async with running_runner(settings, None, clock) as runner:
        start_watchdog(runner.loops, clock, notifier, runner.store.ping)
        notifier.ready(_status_of(runner))
        runner.loops.start("status", lambda: _tell_status(runner, notifier), STATUS_SECONDS)
        log.info("runner is ready node=%s url=%s version=%s", runner.hostname, runner.url, __version__)
        await stop.wait()
        notifier.stopping()
        log.info("runner stops; workloads go on count=%d", runner.workloads.count(State.RUNNING, State.PAUSED))


async def _make_bench(settings: RunnerSettings, slot: EngineSlot, clock: Clock, stack: AsyncExitStack) -> Bench:
    """The tools of one runner; the stack puts them away again, the last one first."""
    state_dir = Path(settings.state_dir).expanduser()
    own_logs = state_dir / "logs"
    local_temp = Path(settings.local_temp_dir).expanduser() if settings.local_temp_dir else state_dir / "local_temp"
    await asyncio.to_thread(_make_directories, state_dir, own_logs, local_temp)
    store = await asyncio.to_thread(Store, state_dir / "runner.db")
    stack.push_async_callback(asyncio.to_thread, store.close)
    overlay = Overlay(settings, store, clock)
    await overlay.restore()
    stack.push_async_callback(asyncio.to_thread, overlay.close)
    disk, reading = Disk("disk", DISK_THREADS), Disk("output-reader", READING_THREADS)
    stack.callback(disk.close)
    stack.callback(reading.close)
    sftp = Disk("sftp", SFTP_THREADS)
    stack.callback(sftp.close)
    stack.push_async_callback(slot.close)
    loops = Loops(clock, spawn_limit=SPAWN_LIMIT)
    stack.push_async_callback(loops.stop)
    shared_dir = Path(settings.shared_dir).expanduser() if settings.shared_dir else None
    shared = SharedStorage(shared_dir, clock)
    images = _make_images(settings, slot, loops, shared, store)
    await images.ledger.load()
    stack.callback(images.fetch.disk.close)
    stack.callback(images.stop)
    return Bench(
        settings=settings,
        hostname=hostname_of(settings),
        own_logs=own_logs,
        local_temp=local_temp,
        clock=clock,
        loops=loops,
        store=store,
        store_name=await store.name(),
        slot=slot,
        cluster=await Cluster.from_store(store),
        shared=shared,
        marks=Marks(state_dir / "started", disk),
        outputs=Outputs([*([shared_dir / "logs"] if shared_dir else []), own_logs], reading),
        disk=disk,
        sftp=sftp,
        mount_rules=await asyncio.to_thread(mounts.rules_of, settings),
        images=images,
        garbage=Garbage(settings, lambda: slot.engine.images, images.ledger, disk, clock, percent_used),
        snapshots=Snapshots(slot, settings, clock),
        overlay=overlay,
        door=TunnelDoor(await asyncio.to_thread(make_secret, state_dir / TUNNEL_SECRET_FILE))
        if settings.tunnel_enabled
        else TunnelDoor(),
        plain_network=PlainNetwork(settings, clock),
    )


def _make_images(
    settings: RunnerSettings, slot: EngineSlot, loops: Loops, shared: SharedStorage, store: Store
) -> Images:
    arriving, clock = Path(settings.state_dir).expanduser() / "images", shared.clock
    disk, limits = Disk("images", IMAGE_THREADS), Limits(settings.image_limit_bytes)
    fetch = TarballFetch(arriving, shared, disk, clock, settings.docker_image_sync_timeout, limits)
    return Images(loops, lambda: slot.engine.images, fetch, ImageLedger(store, clock))


def _make_directories(state_dir: Path, own_logs: Path, local_temp: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    own_logs.mkdir(exist_ok=True)
    if not local_temp.is_dir():
        local_temp.mkdir(parents=True)
        local_temp.chmod(0o1777)  # tasks of any user id may use it, and not touch what others left there


async def _assemble(bench: Bench, belongs: Belonging, senses: Senses | None, stack: AsyncExitStack) -> Runner:
    trusts = context_for(belongs.ca_pem) if belongs.ca_pem else True
    http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=4, ssl=trusts)))
    host_url = url_of(belongs.settings.host_address, belongs.settings.host_port, "https" if belongs.ca_pem else "http")
    signer = Signer(bench.hostname, belongs.key, SteadyTime())
    peer = Peer(http, host_url, signer)
    attempts = Workloads(bench)
    state_dir = Path(bench.settings.state_dir).expanduser()
    if senses is None:
        senses = await asyncio.to_thread(Sampler, bench.clock, state_dir)
    vitals = Vitals(bench, senses)
    link = HostLink(bench, attempts, vitals, peer, belongs.identity.own_fingerprint if belongs.identity else "")
    bench.images.fetch.source = link
    own_files = Files()
    stack.callback(own_files.close)
    terminals = Terminals(bench, attempts)
    stack.push_async_callback(terminals.sessions.close)
    return Runner(
        terminals=terminals,
        ways=Ways(),
        settings=bench.settings,
        hostname=bench.hostname,
        bench=bench,
        workloads=attempts,
        vitals=vitals,
        link=link,
        files=own_files,
        unfinished=Unfinished(state_dir / "unfinished", bench.clock),
        host_keys=HostKeys(belongs.settings, signer, belongs.key, belongs.coming),
    )


async def _start_loops(runner: Runner, waits_for_cluster: bool) -> None:
    bench, loops = runner.bench, runner.loops
    if bench.shared.directory is not None:
        await bench.shared.look(bench.cluster.id)
        loops.start(
            "shared storage",
            lambda: bench.shared.look(bench.cluster.told),
            SHARED_STORAGE_SECONDS,
            bench.cluster.learned,
        )
    if bench.cluster.id or not waits_for_cluster:
        with suppress(EngineFailed):  # told by its own warning; tried again below
            await runner.workloads.connect()
    loops.run("engine", lambda: _connect(runner, waits_for_cluster))
    loops.start("overlay", bench.overlay.step, OVERLAY_SECONDS, bench.overlay.changed)
    if runner.settings.overlay_allowed:
        loops.run("network changes", lambda: ring_on_changes(bench.overlay.changed, bench.clock))
    loops.start("metrics", runner.vitals.sample, runner.settings.resource_check_interval_seconds)
    loops.start("image garbage", bench.garbage.collect, COLLECT_SECONDS)
    keep = Keep(runner.settings.log_keep_days, runner.settings.log_keep_bytes)
    if keep.is_limited:
        loops.start("logs", LogKeeper(bench, runner.workloads, keep).step, LOGS_SECONDS)
    loops.start("terminals", runner.terminals.sweep, SWEEP_SECONDS)
    loops.start("unfinished files", lambda: files.sweep(runner), UNFINISHED_SECONDS)
    watch = UseWatch(bench, runner.workloads, runner.vitals)
    loops.start("use of vps", watch.step, USE_SECONDS)
    loops.start("forget", runner.workloads.flush, FORGET_SECONDS)
    loops.start("scrub", runner.store.scrub, SCRUB_SECONDS)
    loops.run("host link", lambda: runner.link.keep(runner.url))
    loops.run("pulse", runner.link.keep_pulse)


async def _connect(runner: Runner, waits_for_cluster: bool) -> None:
    if waits_for_cluster:
        await runner.bench.cluster.known.wait()
    await runner.bench.insist("connect", runner.workloads.connect)


def _status_of(runner: Runner) -> str:
    running = runner.workloads.count(State.RUNNING, State.PAUSED)
    host = "" if runner.link.joined else ", waits for its host"
    engine = f", the engine does not answer: {runner.workloads.trouble}" if runner.workloads.trouble else ""
    return f"{running} running{host}{engine}"


async def _tell_status(runner: Runner, notifier: Notifier) -> None:
    notifier.status(_status_of(runner))
