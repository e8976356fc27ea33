"""The place of the engine, which is made when it is known to which cluster its workloads belong."""

import asyncio
from collections.abc import Callable

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.engine import Engine, EngineInfo


class EngineSlot:
    """The engine, which is made when it is known to which cluster its workloads belong; `info` is what it said it is."""

    def __init__(self, make: Callable[[str], Engine]) -> None:
        self._make = make
        self._engine: Engine | None = None
        self._opened = False
        self.info: EngineInfo | None = None

    @property
    def engine(self) -> Engine:
        """The engine; raises EngineFailed while there is none."""
        if self._engine is None:
            raise EngineFailed("the engine is not there yet", retry_elsewhere=True)
        return self._engine

    async def open(self, cluster_id: str) -> None:
        """Make the engine if need be and connect it, once; raises EngineFailed."""
        if self._engine is None:
            self._engine = await asyncio.to_thread(self._make, cluster_id)  # importing it takes a while
        if not self._opened:
            await self._engine.open()
            self._opened = True
        self.info = await self._engine.describe()

    async def close(self) -> None:
        """Let go of it; workloads go on."""
        if self._engine is not None:
            await self._engine.close()
