"""Words for images: the tarball that carries an environment, how far a copy is, what a node has."""

import re
from dataclasses import dataclass
from enum import StrEnum

from kohakuriver.model.fields import ENVIRONMENT, Bounds, declare
from kohakuriver.model.units import show_bytes, show_seconds

ENVIRONMENT_NAME = Bounds(length=63, shortest=1, pattern=ENVIRONMENT)
STEM = rf"{ENVIRONMENT}-[0-9]{{9,12}}"  # of a tarball's file: {name}-{unix seconds}
DIGEST = r"[0-9a-f]{64}"
TARBALL_LABEL = "kohakuriver.tarball"  # of an image: the stem of the tarball it came in
IMAGE_PREFIX = "kohakuriver/"
TARBALL_FOLDER = "kohakuriver-containers"  # in SHARED_DIR
SETTLED_SECONDS = 1.0  # before it, a rate says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tarball:
    """An environment's image as one file; `digest` is the SHA-256 of all its bytes, `made_at` in UTC unix seconds."""

    stem: str = declare("Its file's name without `.tar`.", bounds=Bounds(length=80, pattern=STEM))
    environment: str = declare("Of which environment.", bounds=ENVIRONMENT_NAME)
    made_at: int = declare("When it was made.", bounds=Bounds(least=0))
    size_bytes: int = declare("Its size.", bounds=Bounds(least=0))
    digest: str = declare("SHA-256, in hex.", bounds=Bounds(length=64, pattern=DIGEST))

    @property
    def image(self) -> str:
        """The name under which its image is known to Docker."""
        return image_name(self.environment)


class SyncPhase(StrEnum):
    """How far a node is with the image of a tarball."""

    ABSENT = "absent"
    FETCHING = "fetching"
    LOADING = "loading"
    PRESENT = "present"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """A node and the image of one tarball; `message` says why it failed, or how far it is, for people."""

    phase: SyncPhase
    done_bytes: int = 0
    total_bytes: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImage:
    """An image on a node; `ours` when this runner brought it, which is what garbage collection may take."""

    image_id: str
    names: list[str]
    size_bytes: int
    created_at: int
    tarball: str = ""
    ours: bool = False
    pinned: bool = False
    in_use: bool = False


def image_name(environment: str) -> str:
    """The image of an environment, wherever it is."""
    return f"{IMAGE_PREFIX}{environment}:base"


def environment_of(stem: str) -> tuple[str, int]:
    """Name and time of a tarball's stem; raises ValueError."""
    if not re.fullmatch(STEM, stem):
        raise ValueError(f"{stem[:80]!r} is not NAME-SECONDS")
    name, _, seconds = stem.rpartition("-")
    return name, int(seconds)


def show_progress(what: str, done_bytes: int, total_bytes: int, seconds: float) -> str:
    """How far a copy is that began so many seconds ago, with rate and time left: one line."""
    told = f"{what}: {show_bytes(done_bytes)}" + (f" of {show_bytes(total_bytes)}" if total_bytes else "")
    if seconds < SETTLED_SECONDS or not done_bytes:
        return told
    rate = done_bytes / seconds
    left = f", {show_seconds((total_bytes - done_bytes) / rate)} left" if total_bytes > done_bytes else ""
    return f"{told}, {show_bytes(int(rate))}/s{left}"
