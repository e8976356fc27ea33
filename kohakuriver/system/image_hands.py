"""What a runner may do with the images of its node: the protocol, for engines that have images at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kohakuriver.system.docker_archives import Transfer


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password for one pull; never written down."""

    username: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, text: str) -> "Login | None":
        """What USER:PASSWORD means; None for an empty text."""
        username, colon, password = text.partition(":")
        return cls(username, password) if colon else None


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image; `digest` is NAME@sha256:… where a registry gave it, else its id."""

    id: str
    digest: str
    size_bytes: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image as the daemon has it; `containers` are how many are made of it, `created_at` in unix seconds."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    created_at: int
    labels: Mapping[str, str]
    containers: int


class ImageHands(Protocol):
    """Hands for the images of one node; all raise EngineFailed, and none touches what it was not asked about."""

    async def ensure(self, image: str, login: Login | None = None, transfer: Transfer | None = None) -> bool:
        """Return when it is on the node, pulled if need be; whether it was."""

    async def load(self, path: Path, transfer: Transfer) -> None:
        """Have the daemon read an archive that was checked; raises Stopped when that is given up."""

    async def find(self, image: str) -> FoundImage | None:
        """What there is under that name just now."""

    async def all(self) -> list[SeenImage]:
        """All images of the node."""

    async def remove(self, name_or_id: str) -> None:
        """Take it away unless something is made of it."""

    async def directory(self) -> str:
        """Where the daemon keeps them."""
