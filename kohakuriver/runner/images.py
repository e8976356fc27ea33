"""Brings images to the node before a workload starts: each once, however many wait for it, and tells how far it is."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.image import TARBALL_LABEL, SyncPhase, SyncState, Tarball, show_progress
from kohakuriver.runner.image_ledger import ImageLedger
from kohakuriver.runner.tarball_fetch import TarballFetch
from kohakuriver.system.docker_archives import Stopped, Transfer
from kohakuriver.system.image_archive import BadArchive, check_archive
from kohakuriver.system.image_hands import FoundImage, ImageHands, Login
from kohakuriver.system.loops import Loops

log = logging.getLogger(__name__)
TELL_SECONDS = 1.0
FAILURES_KEPT = 100
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The image that a workload needs; with a `tarball` just the image in that one. A login without password lost it."""

    image: str
    tarball: Tarball | None = None
    login: Login | None = None


@dataclass(slots=True)
class Copy:
    """One image on its way to the node; `error` says why it did not get there, once it is `over`."""

    what: str
    began: float
    transfer: Transfer = field(default_factory=Transfer)
    phase: SyncPhase = SyncPhase.FETCHING
    error: EngineFailed | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, phase: SyncPhase, what: str, now: float) -> None:
        """Begin with what comes next, counted anew."""
        self.phase, self.what, self.began, self.transfer.done_bytes = phase, what, now, 0

    def told(self, now: float) -> str:
        """How far it is, for people."""
        whole = self.transfer.total_bytes and self.transfer.done_bytes >= self.transfer.total_bytes
        if self.phase is SyncPhase.LOADING and whole:
            return f"{self.what}: Docker unpacks it"
        return show_progress(self.what, self.transfer.done_bytes, self.transfer.total_bytes, now - self.began)

    def state(self, now: float) -> SyncState:
        """The same for programs, and for people beside it."""
        moved = {"done_bytes": self.transfer.done_bytes, "total_bytes": self.transfer.total_bytes}
        return SyncState(phase=self.phase, message=self.told(now), **moved)


class Images:
    """What is on its way just now; `hands` gives those of the engine, or raises EngineFailed while there is none."""

    def __init__(
        self, loops: Loops, hands: Callable[[], ImageHands | None], fetch: TarballFetch, ledger: ImageLedger
    ) -> None:
        self._loops, self._clock, self._hands, self.fetch = loops, fetch.clock, hands, fetch
        self.ledger = ledger
        self._copies: dict[object, Copy] = {}
        self._failures: dict[str, str] = {}

    async def bring(self, wanted: Wanted, tell: Tell) -> FoundImage | None:
        """The image, up to date on this node; None when the engine has no images. Raises EngineFailed."""
        hands = self._hands()
        if hands is None:
            return None
        found = await hands.find(wanted.image)
        if found is None or not _is_current(found, wanted.tarball):
            await self._follow(self._begin(hands, wanted), tell)
            found = await hands.find(wanted.image)
        if found is None or not _is_current(found, wanted.tarball):
            raise EngineFailed(f"image {wanted.image} was taken away as soon as it was here", retry_elsewhere=True)
        self.ledger.use(found)
        return found

    async def sync(self, tarball: Tarball) -> SyncState:
        """Have the image of a tarball brought, without anybody who waits for it; how far it is."""
        wanted, hands = Wanted(tarball.image, tarball), self._with_images()
        if _is_current(await hands.find(tarball.image), tarball):
            return SyncState(phase=SyncPhase.PRESENT)
        return self._begin(hands, wanted).state(self._clock.monotonic())

    async def look(self, stem: str, image: str) -> SyncState:
        """How far the image of a tarball is; raises EngineFailed."""
        if stem in self._copies:
            return self._copies[stem].state(self._clock.monotonic())
        found = await self._with_images().find(image)
        if found is not None and found.labels.get(TARBALL_LABEL) == stem:
            return SyncState(phase=SyncPhase.PRESENT)
        if stem in self._failures:
            return SyncState(phase=SyncPhase.FAILED, message=self._failures[stem])
        return SyncState(phase=SyncPhase.ABSENT)

    def stop(self) -> None:
        """Give up what is on its way; the next runner goes on with it."""
        for copy in self._copies.values():
            copy.transfer.stop()

    def _with_images(self) -> ImageHands:
        hands = self._hands()
        if hands is None:
            raise EngineFailed("this node's engine has no images")
        return hands

    def _begin(self, hands: ImageHands, wanted: Wanted) -> Copy:
        key = wanted.tarball.stem if wanted.tarball else (wanted.image, wanted.login)
        if key not in self._copies:
            copy = self._copies[key] = Copy(f"fetches {wanted.image}", self._clock.monotonic())
            work = self._load(hands, wanted.tarball, copy) if wanted.tarball else self._pull(hands, wanted, copy)
            self._loops.spawn(f"image {wanted.image}", self._carry_out(key, copy, work))
        return self._copies[key]

    async def _carry_out(self, key: object, copy: Copy, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EngineFailed as failed:
            copy.error = failed
        except Stopped:
            copy.error = EngineFailed(f"{copy.what}: given up", retry_elsewhere=True)
        except OSError as broken:
            copy.error = EngineFailed(f"{copy.what}: {broken}", retry_elsewhere=True)
        finally:
            del self._copies[key]
            copy.transfer.stop()
            copy.over.set()
            if copy.error is not None:
                log.warning("image does not come what=%s error=%s", copy.what, copy.error)
                self._remember_failure(str(key), str(copy.error))

    def _remember_failure(self, key: str, why: str) -> None:
        self._failures[key] = why
        while len(self._failures) > FAILURES_KEPT:
            del self._failures[next(iter(self._failures))]

    async def _pull(self, hands: ImageHands, wanted: Wanted, copy: Copy) -> None:
        if wanted.login is not None and not wanted.login.password:
            raise EngineFailed(
                f"the password for {wanted.image} went with a restart of the runner", retry_elsewhere=True
            )
        copy.what = f"pulls {wanted.image}"
        if await hands.ensure(wanted.image, wanted.login, copy.transfer):
            await self._write_down(hands, wanted.image)

    async def _write_down(self, hands: ImageHands, image: str) -> None:
        found = await hands.find(image)
        if found is not None:
            await self.ledger.add(found, image)

    async def _load(self, hands: ImageHands, tarball: Tarball, copy: Copy) -> None:
        path = await self.fetch.get(tarball, copy.transfer)
        copy.enter(SyncPhase.LOADING, f"checks {tarball.stem}", self._clock.monotonic())
        try:
            checked = await self.fetch.disk.do(lambda: check_archive(path, tarball.image, self.fetch.limits))
            if checked.labels.get(TARBALL_LABEL) != tarball.stem:
                raise BadArchive(
                    f"the image in it says that it is {checked.labels.get(TARBALL_LABEL, 'no tarball')!r:.100}"
                )
            copy.enter(SyncPhase.LOADING, f"loads {tarball.stem}", self._clock.monotonic())
            await hands.load(path, copy.transfer)
            await self._write_down(hands, tarball.image)
        except BadArchive as bad:
            await self.fetch.discard(path)
            raise EngineFailed(f"tarball {tarball.stem} is refused: {bad}") from None
        await self.fetch.discard(path)

    async def _follow(self, copy: Copy, tell: Tell) -> None:
        """Return when it is there, and tell meanwhile how far it is; raises EngineFailed."""
        while not copy.over.is_set():
            tell(copy.told(self._clock.monotonic()))
            try:
                async with asyncio.timeout(TELL_SECONDS):
                    await copy.over.wait()
            except TimeoutError:
                continue
        if copy.error is not None:
            raise EngineFailed(str(copy.error), retry_elsewhere=copy.error.retry_elsewhere)


def _is_current(found: FoundImage | None, tarball: Tarball | None) -> bool:
    return found is not None and (tarball is None or found.labels.get(TARBALL_LABEL) == tarball.stem)
