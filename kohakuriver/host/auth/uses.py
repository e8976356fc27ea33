"""Who is inside a workload just now, so that he can be cut off when it is his no more."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kohakuriver.host.store import workload_use
from kohakuriver.model.access import Caller, Ownership
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotFound
from kohakuriver.system.sqlite import Database

Cut = Callable[[], None]


@dataclass(slots=True)
class Uses:
    """All who are inside, by workload; `spawn` starts background work."""

    db: Database
    spawn: Callable[[str, Coroutine[Any, Any, None]], object]
    _inside: dict[Snowflake, set[tuple[Caller, Cut]]] = field(default_factory=dict)

    async def check(self, caller: Caller, task_id: Snowflake) -> None:
        """Raises NotFound when somebody may not be inside."""
        if not await self._may(caller, task_id):
            raise NotFound(f"there is no task {task_id}")

    @contextmanager
    def watch(self, caller: Caller, owns: Ownership, asked: Any, cut: Cut) -> Iterator[None]:
        """While the block runs, `cut` is called when the caller may no longer be inside.

        Since he was asked it may have been taken from him, when nobody knew yet that he comes: so he is looked at again.
        """
        if owns is not Ownership.WORKLOAD_USE:
            yield
            return
        entry = (caller, cut)
        inside = self._inside.setdefault(asked.task_id, set())
        inside.add(entry)
        try:
            self.spawn("look again who is inside", self._cut_unless_his(asked.task_id, entry))
            yield
        finally:
            inside.discard(entry)
            if not inside:
                self._inside.pop(asked.task_id, None)

    def is_somebody_inside(self, task_id: Snowflake) -> bool:
        """Whether anybody is inside a workload just now."""
        return bool(self._inside.get(task_id))

    async def recheck(self, task_id: Snowflake) -> None:
        """Cut off whoever may no longer be inside; to be called after whatever takes a workload from somebody."""
        for entry in tuple(self._inside.get(task_id, ())):
            await self._cut_unless_his(task_id, entry)

    async def _cut_unless_his(self, task_id: Snowflake, entry: tuple[Caller, Cut]) -> None:
        caller, cut = entry
        if not await self._may(caller, task_id) and entry in self._inside.get(task_id, ()):
            cut()

    async def _may(self, caller: Caller, task_id: Snowflake) -> bool:
        return await self.db.read(lambda tx: workload_use.may_use(tx, task_id, caller))
