"""What a route and a channel are; tables of these are the whole contract between the programs."""

from dataclasses import dataclass, fields
from functools import cached_property
from string import Formatter
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from kohakuriver.model.access import Ownership, Role

Q = TypeVar("Q")
R = TypeVar("R")
MEGABYTE = 1_000_000


class ByteStream:
    """Marks a route whose answer is raw bytes (`application/octet-stream`) instead of JSON."""


class PlainText:
    """Marks a route whose answer is text for another program (`text/plain`) instead of JSON."""


class _Entry:
    """What routes and channels have in common: a path with parameters, and the record that they fill."""

    name: str
    method: str
    path: str
    takes: type[Any]

    def __post_init__(self) -> None:
        stray = self.path_fields - self.field_names
        if stray:
            raise TypeError(f"{self.name}: its path names unknown fields {sorted(stray)}")

    @cached_property
    def path_fields(self) -> frozenset[str]:
        return frozenset(name for _, name, _, _ in Formatter().parse(self.path) if name)

    @cached_property
    def field_names(self) -> frozenset[str]:
        return frozenset(f.name for f in fields(self.takes))

    @property
    def has_body(self) -> bool:
        """Whether what is not in the path travels as a JSON body; otherwise in the query."""
        return self.method in ("POST", "PUT", "PATCH")

    def split(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The URL path, and the members that remain for the query or the body."""
        path = self.path.format(**{name: quote(str(request[name]), safe="") for name in self.path_fields})
        return path, {k: v for k, v in request.items() if k not in self.path_fields and v is not None}


@dataclass(frozen=True)
class Route(_Entry, Generic[Q, R]):
    """One request: what it takes, what it gives, who may ask, whose thing it touches."""

    name: str
    method: str
    path: str
    takes: type[Q]
    gives: type[R]
    needs: Role
    about: str
    owns: Ownership = Ownership.NOTHING
    success: int = 200
    body_limit_bytes: int = MEGABYTE
    media: str = "application/octet-stream"  # of raw bytes
    raw_body: bool = False  # its body is raw bytes, and what is not in the path travels in the query
    ranged: bool = False  # a Range header says its `offset`, for people who come with stock clients

    @property
    def has_body(self) -> bool:
        return not self.raw_body and super().has_body


@dataclass(frozen=True)
class Channel(_Entry, Generic[Q]):
    """One socket: its parameters, who may open it, whose thing it reaches.

    It is asked for as a WebSocket, or with `Upgrade: kohakuriver-stream` as records on a plain connection.
    """

    name: str
    path: str
    takes: type[Q]
    needs: Role
    about: str
    owns: Ownership = Ownership.NOTHING
    method: str = "GET"


Entry = Route[Any, Any] | Channel[Any]


def table_of(namespace: dict[str, Any]) -> tuple[Route[Any, Any], ...]:
    """The routes that a module declares, in order."""
    return tuple(value for value in namespace.values() if isinstance(value, Route))


def channels_of(namespace: dict[str, Any]) -> tuple[Channel[Any], ...]:
    """The channels that a module declares, in order."""
    return tuple(value for value in namespace.values() if isinstance(value, Channel))
