"""The routes of files: the same for people at the host and for the host at a runner, but for who may ask."""

from dataclasses import field, fields, make_dataclass, replace
from functools import cache
from typing import Any, TypeVar, overload

from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import declare
from kohakuriver.model.files import (
    ANY_SIZE,
    MAX_WRITE_BYTES,
    AtPath,
    Deleted,
    DeleteFile,
    DownloadFile,
    FileEntry,
    FilePage,
    ListFiles,
    LookAtFile,
    MakeDirectory,
    ReadFile,
    RenameFile,
    TreeStored,
    UploadFile,
    WriteFile,
)
from kohakuriver.model.image import ENVIRONMENT_NAME
from kohakuriver.model.route import ByteStream, Channel, Entry, Route, table_of

Q = TypeVar("Q")
R = TypeVar("R")
OF_WORKLOADS = ("task_id", "attempt")
U, O = Role.USER, Ownership.WORKLOAD_USE
P = "/api/fs/{task_id}/"
LIST = Route("fs.list", "GET", P + "list", ListFiles, FilePage, U, "A directory, page by page.", O)
STAT = Route("fs.stat", "GET", P + "stat", LookAtFile, FileEntry, U, "What is at a path.", O)
READ = Route("fs.read", "GET", P + "read", ReadFile, ByteStream, U, "Up to 10 MB of a file.", O, ranged=True)
DOWNLOAD = Route(
    "fs.download", "GET", P + "download", DownloadFile, ByteStream, U, "A file of any size.", O, ranged=True
)
PACK = Route("fs.pack", "GET", P + "tree", AtPath, ByteStream, U, "A directory as a tar.", O, media="application/x-tar")
WRITE = Route(
    "fs.write",
    "PUT",
    P + "write",
    WriteFile,
    FileEntry,
    U,
    "Write a file of up to 50 MB.",
    O,
    body_limit_bytes=MAX_WRITE_BYTES,
    raw_body=True,
)
UPLOAD = Route(
    "fs.upload",
    "PUT",
    P + "upload",
    UploadFile,
    FileEntry,
    U,
    "Write a file of any size.",
    O,
    body_limit_bytes=ANY_SIZE,
    raw_body=True,
)
UNPACK = Route(
    "fs.unpack",
    "PUT",
    P + "tree",
    AtPath,
    TreeStored,
    U,
    "Put what a tar holds into a directory.",
    O,
    body_limit_bytes=ANY_SIZE,
    raw_body=True,
)
MKDIR = Route("fs.mkdir", "POST", P + "mkdir", MakeDirectory, FileEntry, U, "Make a directory.", O)
RENAME = Route("fs.rename", "POST", P + "rename", RenameFile, FileEntry, U, "Give it another path.", O)
DELETE = Route("fs.delete", "POST", P + "delete", DeleteFile, Deleted, U, "Take it away.", O)

ROUTES = table_of(globals())


def at_runner(route: Route[Q, R]) -> Route[Q, R]:
    """The same request as the host makes it to a runner."""
    return replace(route, needs=Role.NODE, owns=Ownership.HOST)


@overload
def at_environment(entry: Route[Any, R]) -> Route[Any, R]: ...


@overload
def at_environment(entry: Channel[Any]) -> Channel[Any]: ...


def at_environment(entry: Any) -> Any:
    """The same request, or socket, about an environment on the host: its `name` in the place of a workload."""
    return _at_environment(entry)


@cache
def _at_environment(entry: Entry) -> Entry:
    name = ("name", str, declare("The environment.", bounds=ENVIRONMENT_NAME))
    others = [
        (each.name, each.type, field(default=each.default, metadata=each.metadata))
        for each in fields(entry.takes)
        if each.name not in OF_WORKLOADS
    ]
    takes = make_dataclass(f"{entry.takes.__name__}OfEnvironment", [name, *others], frozen=True, kw_only=True)
    return replace(
        entry,
        name=f"environment.{entry.name}",
        path=entry.path.replace("{task_id}", "environment/{name}"),
        takes=takes,
        needs=Role.OPERATOR,
        owns=Ownership.NOTHING,
    )


def of_workload(entry: Route[Q, Any] | Channel[Q], asked: Any) -> Q:
    """What a request about an environment would be about a workload, for whoever needs no more than its paths."""
    given = {each.name: getattr(asked, each.name) for each in fields(asked) if each.name != "name"}
    return entry.takes(**{"task_id": Snowflake(0), **given})


RUNNER_ROUTES = tuple(map(at_runner, ROUTES))


def environment_routes() -> tuple[Route[Any, Any], ...]:
    """All of them; made when they are asked for, as a command needs but one or two."""
    return tuple(map(at_environment, ROUTES))
