"""The clusters that `auth login` remembers, each with the token for it, in a file that is its owner's alone."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from kohakuriver.model.fields import Bounds, declare

FILE = "~/.kohakuriver/auth.json"
NAME = Bounds(length=64, shortest=1, pattern=r"[A-Za-z0-9\[][A-Za-z0-9_.:@\[\]-]*")
MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a host is, and who we are there; without a token nobody."""

    host: str
    port: int
    user: str = ""
    token: str = ""
    tls: bool = False
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All of them by name; `current` is the one that is meant when nothing else is said."""

    clusters: dict[str, Cluster] = field(default_factory=dict)
    current: str = ""

    def get(self, name: str) -> Cluster:
        """The cluster of that name; raises NotFound."""
        if name not in self.clusters:
            known = f"known are {', '.join(self.clusters)}; " if self.clusters else ""
            raise NotFound(
                f"no cluster is named {name[:60]!r} here: {known}"
                f"to add it: kohakuriver auth login --cluster {name[:60]} --host HOST"
            )
        return self.clusters[name]

    def at(self, host: str, port: int) -> str:
        """The name of the cluster at an address, the current one first; empty when there is none."""
        found = [name for name, known in self.clusters.items() if (known.host, known.port) == (host, port)]
        return self.current if self.current in found else "".join(found[:1])

    def with_cluster(self, name: str, cluster: Cluster) -> "Book":
        """The same with this cluster, which is the current one now."""
        return replace(self, clusters=self.clusters | {name: cluster}, current=name)

    def without(self, name: str) -> "Book":
        """The same without that cluster; raises NotFound."""
        self.get(name)
        left = {other: cluster for other, cluster in self.clusters.items() if other != name}
        return Book(clusters=left, current="" if self.current == name else self.current)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A name that somebody gives to a cluster."""

    cluster: str = declare("The name.", bounds=NAME)


def check_name(name: str) -> str:
    """The name; raises BadRequest for one that could not be typed."""
    return codec.decode(Named, {"cluster": name}).cluster


def read(path: str = "") -> Book:
    """What is remembered; raises NotAllowed when others could have read or written it."""
    path = path or os.path.expanduser(FILE)
    try:
        text = _content(path)
    except FileNotFoundError:
        return Book()
    except OSError as refused:
        raise NotAllowed(f"{path}: {refused.strerror}") from None
    try:
        return codec.decode(Book, codec.loads(text), strict=False)
    except BadRequest as wrong:
        raise BadRequest(
            f"{path} is not what `kohakuriver auth login` writes ({wrong}): delete it, log in again"
        ) from None


def change(edit: Callable[[Book], Book]) -> Book:
    """What is remembered after an edit that nobody else's edit comes between."""
    path = os.path.expanduser(FILE)
    try:
        with _locked(os.path.dirname(path)):
            book = edit(read(path))
            _replace(path, json.dumps(codec.encode(book), indent=2) + "\n")
            return book
    except OSError as refused:
        raise NotAllowed(f"{path} cannot be written: {refused.strerror}") from None


def keep_ca(name: str, ca_pem: str) -> str:
    """Put the CA of a cluster beside the file; returns where."""
    path = os.path.join(os.path.dirname(os.path.expanduser(FILE)), f"{name.replace('/', '_')}.ca.crt")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _replace(path, ca_pem)
    except OSError as refused:
        raise NotAllowed(f"{path} cannot be written: {refused.strerror}") from None
    return path


def _content(path: str) -> bytes:
    if os.path.islink(path):
        raise NotAllowed(f"{path} is a link: put the file itself there")
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise NotAllowed(f"{path} holds logins, so it must be a file of your own: move it away and log in again")
        if status.st_mode & 0o077:
            raise NotAllowed(f"{path} holds logins, and others may read or write it: chmod 600 {path}")
        return os.read(file, MAX_BYTES)
    finally:
        os.close(file)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    import fcntl  # most commands only read

    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: str, text: str) -> None:
    """Write the whole file anew, so that nobody ever sees half of it."""
    fresh = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
