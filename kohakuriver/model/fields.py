"""How a field of a message is declared: its default, its meaning and its bounds, in one place."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NO_CONTROL = r"[^\x00-\x1f\x7f]*"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_.-]*"
HOSTNAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?"
ENVIRONMENT = r"[a-z0-9][a-z0-9_.-]{0,62}"
VPS_NAME = r"[a-z][a-z0-9_.-]{0,62}"  # never an id, and nothing that means something in `NAME@host` or `OWNER/NAME`
MAX_INTEGER = 2**53 - 1  # what JSON readers everywhere keep exactly


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value must satisfy beyond its type; `length` bounds text, `count` lists and mappings, in characters and items.

    The last members are for readers of the schema only: a check sees to it, in better words.
    """

    least: float | None = None
    most: float | None = None
    length: int = 4096
    shortest: int = 0
    pattern: str | None = None
    count: int = 10_000
    check: Callable[[Any], None] | None = None  # raises ValueError with the reason
    fewest: int = 0
    distinct: bool = False
    shape: str = ""  # a pattern
    keys: str = ""  # a pattern
    form: str = ""  # a `format` of JSON Schema
    not_with: str = ""  # the other member of which at most one may be given

    def matches(self, text: str) -> bool:
        return self.pattern is None or re.fullmatch(self.pattern, text, re.DOTALL) is not None


FREE = Bounds()
MOMENT = Bounds(least=0, most=253_402_300_799)  # UTC unix seconds that a calendar can show: until the year 9999


def declare(about: str, *, default: Any = dataclasses.MISSING, bounds: Bounds = FREE, flag: str = "") -> Any:
    """A dataclass field with a meaning; `flag` is a short option letter for the command line."""
    metadata = {"about": about, "bounds": bounds, "flag": flag}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def bounds_of(field: "dataclasses.Field[Any]") -> Bounds:
    found = field.metadata.get("bounds", FREE)
    assert isinstance(found, Bounds)
    return found
