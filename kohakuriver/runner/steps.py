"""How an attempt comes to run: an ordered list of small steps, each repeatable, undone in reverse."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kohakuriver.model.errors import EngineFailed, NotFound, Refused
from kohakuriver.model.runner_api import without_password
from kohakuriver.runner import mounts
from kohakuriver.runner.attempt import Held, Unwanted, one_line
from kohakuriver.runner.bench import Bench
from kohakuriver.runner.container_spec import build, check_policy
from kohakuriver.runner.images import Wanted
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME, ContainerSpec, Mount, Phase, WorkloadKey
from kohakuriver.system.image_hands import Login

log = logging.getLogger(__name__)
ENGINE_PATIENCE_SECONDS = 15.0  # a daemon that restarts is waited for; one that is gone is not
AGAIN_SECONDS = 0.25
NETWORK_TRIES = 100  # the overlay may be just about to be made


@dataclass(slots=True)
class Work:
    """One attempt on its way to run; `spec` grows complete with the first steps."""

    bench: Bench
    held: Held
    spec: ContainerSpec
    own_mounts: tuple[Mount, ...] = ()


Act = Callable[[Work], Awaitable[None]]


async def _nothing(work: Work) -> None:
    """There is nothing to undo."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: doing it twice is as doing it once, and so is undoing it.

    `tries` is how often an engine that is well may say that another node might do better before that is believed.
    """

    name: str
    do: Act
    undo: Act = _nothing
    tries: int = 3


def begin(bench: Bench, held: Held) -> Work:
    """An attempt with the spec as far as it can be told without looking at the machine."""
    return Work(bench, held, build(held.accepted, bench.site(), ()))


async def prepare(work: Work) -> None:
    """Take every step; raises Unwanted, EngineFailed or a Refused with nothing left behind."""
    begun: list[Step] = []
    try:
        for step in STEPS:
            if work.held.unwanted:
                raise Unwanted
            begun.append(step)
            await _patiently(step, work)
    except (EngineFailed, Refused, Unwanted) as why:
        log.info("attempt will not start key=%s step=%s why=%s", _label(work), begun[-1].name if begun else "-", why)
        for step in reversed(begun):
            await work.bench.insist(f"undo {step.name}", lambda step=step: step.undo(work))  # type: ignore[misc]
        raise


async def _patiently(step: Step, work: Work) -> None:
    """Do a step; an engine that is away for a moment is waited for, one that is well is asked but a few times."""
    clock, pause, tries_left = work.bench.clock, AGAIN_SECONDS, step.tries
    give_up_at = clock.monotonic() + ENGINE_PATIENCE_SECONDS
    while True:
        try:
            return await step.do(work)
        except EngineFailed as failed:
            tries_left -= await _engine_answers(work)
            if not failed.retry_elsewhere or tries_left == 0 or clock.monotonic() + pause > give_up_at:
                raise
            log.warning("step failed, will try again key=%s step=%s error=%s", _label(work), step.name, failed)
            _tell(work, f"waits for the engine: {failed}")
        async with work.held.patience(None, step.name):
            await clock.sleep(pause)
        pause *= 2


async def _engine_answers(work: Work) -> bool:
    try:
        await work.bench.engine.describe()
    except EngineFailed:
        return False
    return True


def _tell(work: Work, message: str) -> None:
    work.held.state = replace(work.held.state, message=one_line(message))
    work.bench.changed.set()


def _label(work: Work) -> str:
    return f"{work.held.key.task_id}/{work.held.key.attempt}"


async def _wait_for_turn(work: Work) -> None:
    if work.held.predecessor is not None:
        async with work.held.patience(None, "the end of the attempt before"):
            await work.held.predecessor.gone.wait()
        work.held.predecessor = None


async def _ask_policy(work: Work) -> None:
    bench, accepted = work.bench, work.held.accepted
    site, wanted = bench.site(), accepted.request.spec.additional_mounts
    check_policy(accepted.request, site)
    if wanted:
        work.own_mounts = await bench.disk.do(lambda: mounts.resolve(wanted, bench.mount_rules))
    work.spec = build(accepted, site, work.own_mounts)


async def _bring_files(work: Work) -> None:
    """A VPS that ran before is made from a snapshot: of what it was when it stopped, or of the one that was chosen."""
    order = work.held.accepted.request.vps
    if order is not None and not order.is_new:
        _tell(work, "its files are made ready")
        work.spec = replace(work.spec, image=await work.bench.snapshots.image_for(work.held.key, order.restore))


async def _get_image(work: Work) -> None:
    bench, image = work.bench, work.spec.image
    accepted = work.held.accepted
    wanted = Wanted(image, accepted.request.tarball, Login.of(accepted.request.registry_login))
    async with work.held.patience(bench.settings.docker_image_sync_timeout, f"image {image}"):
        found = await bench.images.bring(wanted, lambda text: _tell(work, text))
        if found is None:
            return await bench.engine.ensure_image(image)
    work.held.state = replace(work.held.state, image_digest=found.digest)
    work.held.accepted = replace(accepted, request=without_password(accepted.request))


async def _make_directories(work: Work) -> None:
    try:
        await work.bench.disk.do(lambda: work.spec.log_directory.mkdir(parents=True, exist_ok=True))
    except OSError as broken:
        raise EngineFailed(f"no directory for its output: {broken}", retry_elsewhere=True) from None


async def _remove_directories(work: Work) -> None:
    await work.bench.disk.do(lambda: _remove_if_empty(work.spec.log_directory))


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # not empty, or not there: both are fine
        for name in (STDOUT_NAME, STDERR_NAME):
            if (directory / name).exists() and not (directory / name).stat().st_size:
                (directory / name).unlink()
        directory.rmdir()
        directory.parent.rmdir()


async def _await_network(work: Work) -> None:
    overlay = work.bench.overlay
    if work.spec.address and not overlay.ready:
        raise EngineFailed(
            f"the overlay cannot be used here: {overlay.trouble or 'it is being made'}", retry_elsewhere=True
        )
    if not work.spec.address:
        await work.bench.plain_network.ensure()
    else:
        await overlay.expect(work.spec.address, work.held.accepted.request.owner_tag)


async def _create(work: Work) -> None:
    bench = work.bench
    if work.own_mounts:
        await bench.disk.do(lambda: mounts.check_again(work.own_mounts, bench.mount_rules))
    async with bench.starts:
        await bench.engine.create(work.spec)
    for before in _attempts_before(work.held):
        await bench.engine.remove(before)


def _attempts_before(held: Held) -> list[WorkloadKey]:
    """Those of a VPS whose container has just made room: whoever was killed meanwhile may have left something else."""
    order, (task_id, attempt) = held.accepted.request.vps, held.key
    is_later = order is not None and not order.is_new
    return [WorkloadKey(task_id, number) for number in range(max(1, attempt - 3), attempt)] if is_later else []


async def _remove(work: Work) -> None:
    await work.bench.engine.remove(work.held.key)


async def _start(work: Work) -> None:
    await _mark(work)
    try:
        async with work.bench.starts:
            await work.bench.engine.start(work.spec)
    except NotFound:
        raise EngineFailed("its container was removed before it could start", retry_elsewhere=True) from None
    except EngineFailed as failed:
        certain = not failed.retry_elsewhere  # the program cannot be started, said by an engine that is well
        if certain or not await work.bench.insist("observe", lambda: _has_begun(work)):
            raise


async def _mark(work: Work) -> None:
    try:
        await work.bench.marks.put(work.held.key)
    except OSError as broken:
        raise EngineFailed(f"the runner's state directory cannot be written: {broken}", retry_elsewhere=True) from None
    work.held.may_have_run = True


async def _has_begun(work: Work) -> bool:
    """Whether it started although the engine's answer was an error or got lost."""
    try:
        seen = await work.bench.engine.observe(work.held.key)
    except NotFound:
        return False
    return seen.phase in (Phase.RUNNING, Phase.PAUSED) or (seen.phase is Phase.EXITED and seen.started_at is not None)


async def _unmark(work: Work) -> None:
    await work.bench.marks.take_away(work.held.key)
    work.held.may_have_run = False


STEPS = (
    Step("turn", _wait_for_turn),
    Step("policy", _ask_policy),
    Step("files", _bring_files),
    Step("image", _get_image, tries=1),
    Step("directories", _make_directories, undo=_remove_directories),
    Step("network", _await_network, tries=NETWORK_TRIES),
    Step("container", _create, undo=_remove),
    Step("start", _start, undo=_unmark),
)
