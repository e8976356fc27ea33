"""Files inside a workload, as they are asked for and told; host and runner speak of them in the same words."""

import enum
from dataclasses import dataclass

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.route import MEGABYTE

MAX_READ_BYTES, MAX_WRITE_BYTES = 10 * MEGABYTE, 50 * MEGABYTE
ANY_SIZE = 2**63 - 1
PAGE_ENTRIES = 1000
PATH = Bounds(length=4095, pattern=r"[^\x00]*")
ENTRY_NAME = Bounds(length=1024, pattern=r"[^\x00]*")
MODE = Bounds(least=0, most=0o777)
PART = r"[A-Za-z0-9]{8,64}"
VERSION = r"[0-9a-f-]{0,80}"
# Of an answer with a file's bytes: how many it has in all, and which state of it they are of.
SIZE_HEADER, VERSION_HEADER = "X-Kohakuriver-Size", "X-Kohakuriver-Version"


def part_name(part: str) -> str:
    """The temporary name, in the same directory, of a file that is being written."""
    return f".kohakuriver-{part}.part"


class Kind(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    PIPE = "pipe"
    SOCKET = "socket"
    DEVICE = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One thing in a directory; `target` is where a link leads, `uid` and `gid` are as its node numbers them.

    Bytes of a name that are not UTF-8 are shown as U+FFFD; such things travel in trees, and cannot be named.
    """

    name: str
    kind: Kind
    size_bytes: int
    mode: int
    uid: int
    gid: int
    modified_at: str
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """Entries of a directory by name; `next` is what `after` must be for those behind them, absent at the end."""

    entries: list[FileEntry]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeStored:
    """What a tree brought."""

    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """How many things are gone."""

    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Whose files: those of a workload, of its latest attempt unless another is named."""

    task_id: Snowflake = declare("The workload.")
    attempt: int | None = declare("An earlier attempt, instead of the latest.", default=None, bounds=Bounds(least=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPath(Inside):
    path: str = declare("Where in the workload.", default="/", bounds=PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFiles(AtPath):
    """A page of a directory."""

    after: str = declare("Only names behind this one.", default="", bounds=ENTRY_NAME)
    limit: int = declare("At most so many.", default=PAGE_ENTRIES, bounds=Bounds(least=1, most=PAGE_ENTRIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtFile(AtPath):
    follow: bool = declare("What a link leads to, instead of the link.", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile(AtPath):
    """Some bytes of a file."""

    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))
    length: int = declare("At most so many.", default=MAX_READ_BYTES, bounds=Bounds(least=0, most=MAX_READ_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFile(AtPath):
    """A file of any size, or what is behind `offset`; with a `version`, only if that is still the file there."""

    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))
    version: str = declare("The state that was read before.", default="", bounds=Bounds(pattern=VERSION, length=80))


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile(AtPath):
    """A file's whole content follows."""

    mode: int | None = declare("Its permissions; those it has, or 0644.", default=None, bounds=MODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFile(WriteFile):
    """The content follows, from `offset` on; with a `part` of one's own it can be gone on with when it breaks off."""

    part: str | None = declare("A name drawn for this upload.", default=None, bounds=Bounds(pattern=PART, length=64))
    offset: int = declare("How many bytes are there already.", default=0, bounds=Bounds(least=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory(AtPath):
    parents: bool = declare("Also those above it; one that is there is no error.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameFile(AtPath):
    target: str = declare("Its new path.", bounds=PATH)
    replace: bool = declare("Replace what has that path.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFile(AtPath):
    recursive: bool = declare("Also a directory that is not empty.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFiles(AtPath):
    recursive: bool = declare("Also what is in the directories below.", default=False)


class Change(enum.StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """What happened to one thing, by its path below the one that is watched; a new name is one gone and one made."""

    path: str
    change: Change
    kind: Kind
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChanges:
    """What happened since the last; none in the first, which says that it is being watched.

    `polled` stands when the kernel cannot tell, and changes are found every two seconds.
    """

    changes: list[FileChange]
    polled: bool
