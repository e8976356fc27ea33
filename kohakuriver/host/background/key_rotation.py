"""Changes the keys of runners: agrees on a new one, has it taken, and only then forgets the one before.

Until a runner has shown that it took the new key both are good, so whoever is killed at whatever moment, the node goes
on working; what was left unfinished is finished by a loop.
"""

import asyncio
import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field

from kohakuriver.host.auth.runner_keys import RunnerKeys
from kohakuriver.host.services.task_scheduler import TaskScheduler
from kohakuriver.host.store import audit, runner_keys
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import runner_key_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict, NodeUnreachable, RiverError
from kohakuriver.system.clock import Clock
from kohakuriver.system.key_exchange import Exchange
from kohakuriver.wire import joining
from kohakuriver.wire.joining import Agreed

log = logging.getLogger(__name__)


@dataclass(slots=True)
class KeyRotation:
    """One key at a time."""

    keys: RunnerKeys
    scheduler: TaskScheduler
    clock: Clock
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def rotate(self, caller: Caller, hostname: str) -> None:
        """Give a runner another key; the one before is void when this returns.

        Raises Conflict for a runner without a key of its own, NodeUnreachable when it does not answer.
        """
        async with self._turn:
            await self._finish(hostname)
            await self._agree(caller, hostname)
            try:
                await self._finish(hostname)
            except RiverError as away:
                raise NodeUnreachable(
                    f"node {hostname} has a new key and has not yet said that it uses it ({away}); "
                    "the one before is void as soon as it does"
                ) from away

    async def step(self) -> None:
        """Finish what was left unfinished, of the nodes that answer."""
        for hostname in self.keys.unfinished:
            async with self._turn:
                with suppress(RiverError):
                    await self._finish(hostname)

    async def _agree(self, caller: Caller, hostname: str) -> None:
        peer = self.scheduler.peer_at(hostname)
        row, before = self.keys.own(hostname), self.keys.to(hostname)
        exchange = await asyncio.to_thread(Exchange)
        theirs = (await peer.call(api.OFFER_KEY, api.Half(public=exchange.public))).public
        agreed = Agreed(self.keys.cluster_id, hostname, theirs, exchange.public)
        fresh = self.keys.sealed(row, agreed, joining.exchanged_key(before, exchange.shared(theirs), agreed))

        def begin(tx: sqlite3.Connection) -> None:
            if runner_keys.find(tx, hostname) != row:
                raise Conflict(f"node {hostname} joined again, or was revoked, just now")
            runner_keys.succeed(tx, fresh)
            audit.record(tx, caller, Deed("node.rotate-key", f"node:{hostname}"), self.clock.now())

        await self.keys.commit(hostname, begin)

    async def _finish(self, hostname: str) -> None:
        if hostname not in self.keys.unfinished:
            return
        row = self.keys.own(hostname)
        proof = joining.possession(self.keys.to(hostname), hostname, joining.TAKING)
        await self.scheduler.peer_at(hostname).call(api.TAKE_KEY, api.TakeKey(proof=proof))

        def end(tx: sqlite3.Connection) -> None:
            if runner_keys.find(tx, hostname) == row:
                runner_keys.forget_former(tx, hostname)

        await self.keys.commit(hostname, end)
        log.info("a runner has another key node=%s", hostname)
