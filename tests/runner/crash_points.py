"""Holds a runner at a chosen point of its work, so that it can die exactly there."""

import asyncio
from typing import Any

from tests.runner.stage import Stage

BEFORE, AFTER = "before", "after"
ENGINE = ("ensure_image", "create", "start", "observe", "finish_logs", "remove")
STORE = ("accept", "end", "forget")
MARKS = ("put", "take_away")
ALL = [
    (when, place, name)
    for place, names in (("engine", ENGINE), ("store", STORE), ("marks", MARKS))
    for name in names
    for when in (BEFORE, AFTER)
]


class CrashPoint:
    """Work that reaches the point, before or after the named call, goes no further; `reached` tells that it has."""

    def __init__(self, stage: Stage, when: str, place: str, name: str) -> None:
        owner: Any = {"engine": stage.engine, "store": stage.runner.store, "marks": stage.runner.bench.marks}[place]
        self._when, self._call, self._answers = when, getattr(owner, name), name == "accept"
        self.reached = asyncio.Event()
        setattr(owner, name, self._held)

    async def _held(self, *arguments: Any) -> Any:
        if self._when == AFTER:
            await self._call(*arguments)
        self.reached.set()
        if self._answers:  # who waits for an answer sees the connection break
            raise ConnectionResetError
        await asyncio.get_running_loop().create_future()
