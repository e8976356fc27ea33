"""The keys of all runners in memory: asked by every signed call, changed only by what was committed."""

import asyncio
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kohakuriver.host.store import runner_keys
from kohakuriver.host.store.runner_keys import RunnerKeyRow
from kohakuriver.model.errors import Conflict
from kohakuriver.system.sqlite import Database
from kohakuriver.wire import joining
from kohakuriver.wire.call import NotDelivered
from kohakuriver.wire.joining import Agreed


@dataclass(slots=True)
class RunnerKeys:
    """Who signs with what; `shared` is the cluster's secret for runners that never joined, None when that is off.

    While the key of a runner is being changed, its former one is good, too.
    """

    db: Database
    master: bytes = field(repr=False)
    cluster_id: str
    shared: bytes | None = field(repr=False)
    _rows: dict[str, RunnerKeyRow] = field(default_factory=dict)
    _keys: dict[str, bytes] = field(default_factory=dict, repr=False)
    _former: dict[str, bytes] = field(default_factory=dict, repr=False)

    async def load(self) -> None:
        """Take over all that the store has."""

        def everything(tx: sqlite3.Connection) -> list[tuple[RunnerKeyRow, RunnerKeyRow | None]]:
            return [(row, runner_keys.former(tx, row.hostname)) for row in runner_keys.every(tx)]

        for row, former in await self.db.read(everything):
            self._take(row.hostname, row, former)

    async def commit(self, hostname: str, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` and take over what became of the key of a name; a caller who leaves meanwhile stops neither."""

        def transaction(tx: sqlite3.Connection) -> tuple[RunnerKeyRow | None, RunnerKeyRow | None]:
            work(tx)
            return runner_keys.find(tx, hostname), runner_keys.former(tx, hostname)

        async def both() -> None:
            self._take(hostname, *await self.db.write(transaction))

        await asyncio.shield(both())

    def find(self, name: str) -> bytes | None:
        """The key by which a caller of that name signs; None when nobody of that name is believed."""
        join_id = joining.join_id_of(name)
        if join_id is not None:
            return joining.token_secret(self.master, join_id)
        if name == joining.CONSOLE:
            return joining.console_key(self.master)
        return self._keys.get(name) if name in self._rows else self.shared

    def find_former(self, name: str) -> bytes | None:
        """Another key by which he may sign, while his is being changed."""
        return self._former.get(name)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Whose former key is still good."""
        return tuple(self._former)

    def own(self, hostname: str) -> RunnerKeyRow:
        """What the own key of a runner is made of; raises Conflict when it has none."""
        row = self._rows.get(hostname)
        if row is None:
            raise Conflict(
                f"node {hostname} signs with the cluster's secret; `kohakuriver runner join` gives it its own"
            )
        if row.revoked:
            raise Conflict(f"the key of node {hostname} was revoked: it must join again")
        return row

    def sealed(self, row: RunnerKeyRow, agreed: Agreed, key: bytes) -> RunnerKeyRow:
        """The row of another key for the same runner, out of which nobody without the master key makes anything."""
        sealed = joining.sealed(self.master, agreed, key).hex()
        return replace(row, runner_nonce=agreed.runner_nonce, host_nonce=agreed.host_nonce, sealed=sealed)

    def to(self, hostname: str) -> bytes:
        """The key by which calls to a runner are signed; raises NotDelivered when there is none."""
        key = self.find(hostname)
        if key is None:
            raise NotDelivered(f"node {hostname} has no key (any more): it must join again")
        return key

    def proves(self, hostname: str, nonce: str, proof: str) -> bool:
        """Whether a machine has the key that its name has now."""
        good = [key for key in (self.find(hostname), self.find_former(hostname)) if key]
        return any(hmac.compare_digest(joining.possession(key, hostname, nonce), proof) for key in good)

    def _take(self, hostname: str, row: RunnerKeyRow | None, former: RunnerKeyRow | None) -> None:
        for known in (self._rows, self._keys, self._former):
            known.pop(hostname, None)
        if row is None:
            return
        self._rows[hostname] = row
        if not row.revoked:
            self._keys[hostname] = self._key_of(row)
        if former is not None:
            self._former[hostname] = self._key_of(former)

    def _key_of(self, row: RunnerKeyRow) -> bytes:
        agreed = Agreed(self.cluster_id, row.hostname, row.runner_nonce, row.host_nonce)
        if row.sealed:
            return joining.sealed(self.master, agreed, bytes.fromhex(row.sealed))
        return joining.runner_key(joining.token_secret(self.master, row.join_id), agreed)
