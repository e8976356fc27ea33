"""Which workloads a list is to hold: the same is asked of tasks and of VPS."""

from dataclasses import dataclass

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.report import NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMine:
    """Of those that are the caller's, newest first; `before` is the last id of the page before."""

    status: Status | None = declare("Only in this status.", default=None)
    before: Snowflake | None = declare("Only older than this id.", default=None)
    limit: int = declare("At most so many.", default=50, bounds=Bounds(least=1, most=1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListAll(ListMine):
    """Of all that the caller may see."""

    node: str | None = declare("Only on this node.", default=None, bounds=NAME)
    owner: str | None = declare("Only of this person.", default=None, bounds=Bounds(length=64))
