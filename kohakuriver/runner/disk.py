"""File work away from the event loop, in few threads, so that a slow disk holds up only who needs it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Disk:
    """A bounded pool of threads for file work of one kind."""

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name)

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` in the pool and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the threads go; what hangs in a disk is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
