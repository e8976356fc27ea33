"""What was committed, for all who follow: read once, kept by nobody.

A follower is no more than a number, so however slowly he listens, he costs no memory; when what comes after his number
is kept no more, he has missed something. Without followers nothing is read.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kohakuriver.host.store import assignments, changes
from kohakuriver.host.store.changes import Change
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import TooMany
from kohakuriver.model.events import Kind
from kohakuriver.system.clock import Clock
from kohakuriver.system.sqlite import Database

PAUSE_SECONDS = 0.05  # between two looks, however much is committed
MOST_FOLLOWERS, MOST_OF_ONE = 1000, 50


class Missed(Exception):
    """What comes next is not kept any more; goes on after the number `newest`."""

    def __init__(self, newest: int) -> None:
        super().__init__(newest)
        self.newest = newest


@dataclass(slots=True, eq=False)
class Follower:
    """Somebody who knows what was committed up to a number, and may see some of it."""

    caller: Caller
    position: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False

    def leave(self) -> None:
        """Let him hear no more."""
        self.gone = True
        self.wake.set()


@dataclass(slots=True)
class Feed:
    """The newest page, and who follows."""

    db: Database
    clock: Clock
    _newest: int = 0
    _page: tuple[Change, ...] = ()
    _followers: set[Follower] = field(default_factory=set)
    _followed: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep_reading(self) -> None:
        """Read what is committed and wake whoever follows, for ever."""
        commits = -1
        while True:
            await self._followed.wait()
            commits = await self.db.committed(commits)
            page = await self.db.read(lambda tx: changes.after(tx, self._newest))
            if page:
                self._page, self._newest = page, page[-1].seq
                for follower in self._followers:
                    follower.wake.set()
            if len(page) < changes.AT_ONCE:
                await self.clock.sleep(PAUSE_SECONDS)
            else:
                commits = -1  # there is more

    @contextmanager
    def follower(self, caller: Caller) -> Iterator[Follower]:
        """One more while the block runs; raises TooMany."""
        his = sum(1 for each in self._followers if each.caller.name == caller.name)
        if len(self._followers) >= MOST_FOLLOWERS or his >= MOST_OF_ONE:
            raise TooMany("too many follow events", {"retry_after_seconds": 60})
        follower = Follower(caller)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._followed.clear()

    async def begin(self, follower: Follower, since: int | None) -> None:
        """Put him behind a number, or (None) behind all there is; raises Missed when that cannot be."""
        before_oldest, newest = await self.db.read(changes.span)
        if not self._followed.is_set():
            self._newest = newest
            self._followed.set()
        follower.position = newest
        if since is not None:
            if not before_oldest <= since <= newest:
                raise Missed(newest)
            follower.position = since

    async def next(self, follower: Follower) -> tuple[Change, ...]:
        """What comes after his number, once there is something; empty when he has left. Raises Missed."""
        while not follower.gone and follower.position >= self._newest:
            follower.wake.clear()
            await follower.wake.wait()
        if follower.gone:
            return ()
        page = self._page
        if not page or page[0].seq != follower.position + 1:
            page = await self.db.look_up(changes.after, follower.position)
        if not page or page[0].seq != follower.position + 1:
            follower.position = (await self.db.read(changes.span))[1]
            raise Missed(follower.position)
        follower.position = page[-1].seq
        return page

    async def visible(self, caller: Caller, page: tuple[Change, ...]) -> list[Change]:
        """Those of a page that he may know of: all of nodes and environments, and of workloads what he sees."""
        if caller.sees_all:
            return list(page)
        assigned: frozenset[str] = frozenset()
        if any(each.kind == Kind.VPS and each.owner != caller.name for each in page):
            assigned = await self.db.look_up(assignments.names_of, caller.user_id)
        return [each for each in page if _may_see(caller, assigned, each)]


def _may_see(caller: Caller, assigned: frozenset[str], change: Change) -> bool:
    if change.kind in (Kind.NODE, Kind.ENVIRONMENT):
        return True
    return change.owner == caller.name or (change.kind == Kind.VPS and change.name in assigned)
