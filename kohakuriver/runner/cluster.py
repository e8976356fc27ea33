"""Which cluster this runner belongs to: told by the host, kept in the store."""

import logging

from kohakuriver.runner.store import Store
from kohakuriver.system.loops import Wake

log = logging.getLogger(__name__)
FACT = "cluster_id"


class Cluster:
    """The cluster of this runner; `id` is empty until the host has told it once.

    `id` names the workloads in the engine, so it never changes while the program runs. `told` is what the host said
    last, and differs when the host's own memory was lost.
    """

    def __init__(self, store: Store, known: str) -> None:
        self._store = store
        self.id = self.told = known
        self.known, self.learned = Wake(), Wake()  # a bell belongs to one listener
        if known:
            self.known.set()

    @classmethod
    async def from_store(cls, store: Store) -> "Cluster":
        return cls(store, await store.fact(FACT))

    async def learn(self, told: str, holds_workloads: bool) -> None:
        """Take over what the host says; a new name counts from the next start on, unless workloads bear the old one."""
        if told == self.told:
            return
        if self.told:
            log.warning("the host belongs to another cluster than before before=%s now=%s", self.told, told)
        if not (self.id and holds_workloads):
            await self._store.learn(FACT, told)
        self.told = told
        self.id = self.id or told
        self.known.set()
        self.learned.set()
