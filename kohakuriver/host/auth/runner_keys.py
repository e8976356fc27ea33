"""The keys of all runners in memory: asked by every signed call, changed only by what was committed."""

import asyncio
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from kohakuriver.host.store import runner_keys
from kohakuriver.host.store.runner_keys import RunnerKeyRow
from kohakuriver.model.errors import NodeUnreachable
from kohakuriver.system.sqlite import Database
from kohakuriver.wire import joining
from kohakuriver.wire.joining import Agreed


@dataclass(slots=True)
class RunnerKeys:
    """Who signs with what; `shared` is the cluster's secret for runners that never joined, None when that is off."""

    db: Database
    master: bytes = field(repr=False)
    cluster_id: str
    shared: bytes | None = field(repr=False)
    _rows: dict[str, RunnerKeyRow] = field(default_factory=dict)
    _keys: dict[str, bytes] = field(default_factory=dict, repr=False)

    async def load(self) -> None:
        """Take over all that the store has."""
        for row in await self.db.read(runner_keys.every):
            self._take(row.hostname, row)

    async def commit(self, hostname: str, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` and take over what became of the key of a name; a caller who leaves meanwhile stops neither."""

        def transaction(tx: sqlite3.Connection) -> RunnerKeyRow | None:
            work(tx)
            return runner_keys.find(tx, hostname)

        async def both() -> None:
            self._take(hostname, await self.db.write(transaction))

        await asyncio.shield(both())

    def find(self, name: str) -> bytes | None:
        """The key by which a caller of that name signs; None when nobody of that name is believed."""
        join_id = joining.join_id_of(name)
        if join_id is not None:
            return joining.token_secret(self.master, join_id)
        if name == joining.CONSOLE:
            return joining.console_key(self.master)
        return self._keys.get(name) if name in self._rows else self.shared

    def to(self, hostname: str) -> bytes:
        """The key by which calls to a runner are signed; raises NodeUnreachable when there is none."""
        key = self.find(hostname)
        if key is None:
            raise NodeUnreachable(f"node {hostname} has no key (any more): it must join again")
        return key

    def proves(self, hostname: str, nonce: str, proof: str) -> bool:
        """Whether a machine has the key that its name has now."""
        key = self.find(hostname)
        if key is None:
            return False
        return hmac.compare_digest(joining.possession(key, hostname, nonce), proof)

    def _take(self, hostname: str, row: RunnerKeyRow | None) -> None:
        self._rows.pop(hostname, None)
        self._keys.pop(hostname, None)
        if row is None:
            return
        self._rows[hostname] = row
        if not row.revoked:
            agreed = Agreed(self.cluster_id, hostname, row.runner_nonce, row.host_nonce)
            self._keys[hostname] = joining.runner_key(joining.token_secret(self.master, row.join_id), agreed)
