"""Takes images away that nobody needs when Docker's disk grows full: only such that this runner itself brought."""

import fnmatch
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.disk import Disk
from kohakuriver.runner.image_ledger import Brought, ImageLedger
from kohakuriver.system.clock import Clock
from kohakuriver.system.image_hands import ImageHands, SeenImage

log = logging.getLogger(__name__)
COLLECT_SECONDS = 60.0
LEAST_IDLE_SECONDS = 600.0  # an image just brought may be about to be used


@dataclass(frozen=True, slots=True)
class Pins:
    """Names of images that are never taken away, as patterns."""

    patterns: tuple[str, ...]

    def hold(self, names: Collection[str]) -> bool:
        """Whether one of the names is pinned."""
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.patterns)


def pins_of(settings: RunnerSettings) -> Pins:
    """What the settings pin: what they say, and the image of tasks that name none."""
    base = settings.initial_base_image
    return Pins((*settings.pinned_images, base, f"{base}:latest"))


def condemned(
    seen: Sequence[SeenImage], brought: Mapping[str, Brought], pins: Pins, now: float
) -> list[tuple[SeenImage, Brought]]:
    """The images that may go, first those that were used least lately: pure.

    One that is not ours, or that somebody gave another name, or of which there is a container, stays.
    """
    ours = [(image, brought[image.id]) for image in seen if image.id in brought and not image.containers]
    idle = [
        (image, how)
        for image, how in ours
        if now - how.used_at >= LEAST_IDLE_SECONDS and not pins.hold(image.names) and set(image.names) <= {how.name}
    ]
    return sorted(idle, key=lambda pair: pair[1].used_at)


@dataclass(slots=True)
class Garbage:
    """The collector of one node; `directory` is where Docker keeps its images, found out when it is first needed."""

    settings: RunnerSettings
    hands: Callable[[], ImageHands | None]
    ledger: ImageLedger
    disk: Disk
    clock: Clock
    percent_used: Callable[[str], float]
    directory: str = ""

    async def collect(self) -> None:
        """Look once, and take away as much as is needed."""
        try:
            hands = self.hands()
            if hands is None or not self.settings.image_gc_start_percent:
                return
            self.directory = self.directory or await hands.directory()
            if await self._used() >= self.settings.image_gc_start_percent:
                await self._make_room(hands)
        except EngineFailed as away:
            log.debug("images cannot be looked at now error=%s", away)

    async def _make_room(self, hands: ImageHands) -> None:
        going = condemned(await hands.all(), self.ledger.brought, pins_of(self.settings), self.clock.now())
        for image, how in going:
            try:
                await hands.remove(image.names[0] if image.names else image.id)
            except EngineFailed as kept:  # somebody needs it after all
                log.info("image stays name=%s id=%s error=%s", how.name, image.id, kept)
                continue
            await self.ledger.forget(image.id)
            log.info("image taken away name=%s id=%s bytes=%d", how.name, image.id, image.size_bytes)
            if await self._used() <= self.settings.image_gc_stop_percent:
                return

    async def _used(self) -> float:
        return await self.disk.do(lambda: self.percent_used(self.directory))


def percent_used(directory: str) -> float:
    """How full the disk of a directory is; 0 when it is not on this machine."""
    try:
        total, _, free = shutil.disk_usage(directory)
    except OSError:
        return 0.0
    return 100.0 * (total - free) / total if total else 0.0
