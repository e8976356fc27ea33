"""`kohakuriver fs …`: every command about files inside workloads and environments."""

import dataclasses
import os
import posixpath
from typing import Any

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.files_view import file_detail, file_table
from kohakuriver.client.flags import Spelling
from kohakuriver.client.output import safe
from kohakuriver.client.places import Where, asked, has_path, opened, where_of
from kohakuriver.model import codec, stream_api
from kohakuriver.model import files as f
from kohakuriver.model import files_api as api
from kohakuriver.model.errors import BadRequest, NotFound
from kohakuriver.model.units import show_bytes

WHERE = Flag(
    ("where",), "The workload (or env:NAME), and the path in it.", {"metavar": "ID[:PATH]"}, complete="workload"
)
PATHS = Flag(("where",), "What to take.", {"metavar": "ID:PATH", "nargs": "+"}, complete="workload")
PATH = frozenset({"task_id", "path"})
ATTEMPT = {"attempt": Spelling(metavar="N")}


def list_files(order: Order) -> int:
    """Print a directory, page by page; of a file its own line."""
    where = where_of(order.session, order.parsed.where)
    if _stat(order, where).kind is not f.Kind.DIRECTORY:
        plain = [order.session.ask(*asked(order, where, api.STAT))]
        order.answer(plain, lambda: order.screen.lines(file_table(order.screen).lines(_entries(order, plain))))
        return 0
    (route, request), table = asked(order, where, api.LIST), file_table(order.screen)
    everything: list[Any] = []
    while True:
        page = order.session.ask(route, request)
        everything += page["entries"] if order.as_json else []
        if not order.as_json:
            order.screen.lines(table.lines(_entries(order, page["entries"])))
        if not page.get("next"):
            break
        request = dataclasses.replace(request, after=page["next"])
    if order.as_json:
        order.screen.json(everything)
    return 0


def show(order: Order) -> int:
    """Print all about what is at a path."""
    where = where_of(order.session, order.parsed.where)
    plain = order.session.ask(*asked(order, where, api.STAT, follow=False))
    entry = order.session.understand(api.STAT, plain)
    order.answer(plain, lambda: order.screen.lines(file_detail(order.screen, entry)))
    return 0


def print_files(order: Order) -> int:
    """Write files to standard output, one after the other."""
    from kohakuriver.client.transfers import download

    for text in order.parsed.where:
        download(order, _path(order, text), "-")
    return 0


def put(order: Order) -> int:
    """Copy files and directories of this machine into a workload."""
    from kohakuriver.client.transfers import upload
    from kohakuriver.client.trees import upload_tree

    *sources, target = order.parsed.words
    if not sources:
        raise BadRequest("what is to be copied where? kohakuriver fs put LOCAL… ID:PATH")
    where = where_of(order.session, target)
    into = len(sources) > 1 or target.endswith("/") or not has_path(target) or _is_directory(order, where)
    done = []
    for source in sources:
        there = _below(where, os.path.basename(os.path.abspath(source))) if into and source != "-" else where
        plain = upload_tree(order, source, there) if os.path.isdir(source) else upload(order, source, there)
        done.append(plain | {"path": there.path})
        if not order.as_json:
            order.screen.line(f"{source} -> {there}  {show_bytes(plain['size_bytes'])}")
    if order.as_json:
        order.screen.json(done)
    return 0


def get(order: Order) -> int:
    """Copy a file or a directory of a workload to this machine."""
    from kohakuriver.client.transfers import download
    from kohakuriver.client.trees import download_tree

    where, local = _path(order, order.parsed.where), order.parsed.local
    name = posixpath.basename(where.path.rstrip("/")) or where.whose
    to = os.path.join(local, name) if local != "-" and os.path.isdir(local) else local
    if _stat(order, where).kind is f.Kind.DIRECTORY:
        if to == "-":
            raise BadRequest(f"{where.path} is a directory: name one of this machine to copy it to")
        size = download_tree(order, where, to).bytes
    else:
        size = download(order, where, to)
    if to != "-":
        told = {"path": to, "size_bytes": size}
        order.answer(told, lambda: order.screen.line(f"{where} -> {to}  {show_bytes(size)}"))
    return 0


def remove(order: Order) -> int:
    """Take away what is named."""
    recursive, gone = order.has("recursive"), []
    for text in order.parsed.where:
        gone.append(order.session.ask(*asked(order, _path(order, text), api.DELETE, recursive=recursive)))
    if order.as_json:
        order.screen.json(gone)
    return 0


def make_directories(order: Order) -> int:
    """Make each directory that is named."""
    made = []
    for text in order.parsed.where:
        made.append(order.session.ask(*asked(order, _path(order, text), api.MKDIR, parents=order.has("parents"))))
    if order.as_json:
        order.screen.json(made)
    return 0


def move(order: Order) -> int:
    """Give something another path in the same workload."""
    where, text = _path(order, order.parsed.where), order.parsed.to
    target = where_of(order.session, text) if ":" in text else where._replace(path=text)
    if target._replace(path="") != where._replace(path=""):
        raise BadRequest("both must be in the same place: copy it with `fs get` and `fs put`")
    if _is_directory(order, target):
        target = _below(target, posixpath.basename(where.path.rstrip("/")))
    members = {"target": target.path, "replace": order.has("replace")}
    plain = order.session.ask(*asked(order, where, api.RENAME, **members))
    if order.as_json:
        order.screen.json(plain)
    return 0


def watch(order: Order) -> int:
    """Print a line for each change until interrupted, or the workload ends."""
    import asyncio

    from kohakuriver.client.streams.following import follow

    where = where_of(order.session, order.parsed.where)
    channel, request = opened(order, where, stream_api.WATCH, recursive=order.has("recursive"))
    _stat(order, where)  # it is there, and ours
    order.session.close()

    def tell(message: str) -> None:
        found = codec.decode(f.FileChanges, codec.loads(message), strict=False)
        if not found.changes:
            order.notes.hint(f"watching {where.path}" + (", by looking every two seconds" if found.polled else ""))
        for each in found.changes:
            if order.as_json:
                order.screen.json_line(codec.encode(each))
            else:
                order.screen.line(f"{each.change:<8} {each.kind:<10} {safe(each.path) or where.path}")
        order.screen.out.flush()

    asyncio.run(follow(order, channel, lambda: request, tell, "; what changes meanwhile is missed"))
    return 0


def _path(order: Order, text: str) -> Where:
    """Raises BadRequest when no path is named, so that nothing is done to a whole workload by mistake."""
    if not has_path(text):
        raise BadRequest(f"{text[:60]!r}: a path is missing: ID:PATH")
    return where_of(order.session, text)


def _below(where: Where, name: str) -> Where:
    return where._replace(path=posixpath.join(where.path, name))


def _stat(order: Order, where: Where) -> f.FileEntry:
    return order.session.call(*asked(order, where, api.STAT))


def _is_directory(order: Order, where: Where) -> bool:
    try:
        return _stat(order, where).kind is f.Kind.DIRECTORY
    except NotFound:
        return False


def _entries(order: Order, plain: list[Any]) -> list[f.FileEntry]:
    return order.session.understand(api.LIST, {"entries": plain}).entries


MORE = """\
examples:
  kohakuriver fs ls 187000000000000001:/root
  kohakuriver fs put train.py data/ 187000000000000001:/work/
  kohakuriver fs get 187000000000000001:/work/out.tar .
  kohakuriver fs cat 187000000000000001:/etc/os-release
  tar c . | kohakuriver fs put - 187000000000000001:/work/all.tar

Directories travel whole. Links that lead out of what is copied are left out, and told. A file takes its place when all
of it is there; a copy goes on where it was when the connection breaks. What is put there belongs to the user that the
workload runs as. /proc, /sys and /dev are not files of the workload.

Environments on the host are reached the same way, as env:NAME:PATH (operators):
  kohakuriver fs put requirements.txt env:lab:/root/
"""
WATCH_MORE = """\
A line for each thing that is created, changed or deleted; a new name is one gone and one made. It goes on until Ctrl-C or
until the workload ends. With --json there is one document a line.
"""
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "ls",
        api.LIST,
        act=list_files,
        about="A directory.",
        hidden=PATH | {"after", "limit"},
        spelled=ATTEMPT,
        extra=(WHERE,),
        also=(api.STAT,),
        more=MORE,
    ),
    Command(
        "stat", api.STAT, act=show, about="All about a file.", hidden=PATH | {"follow"}, spelled=ATTEMPT, extra=(WHERE,)
    ),
    Command(
        "cat",
        api.DOWNLOAD,
        act=print_files,
        about="Files, to standard output.",
        hidden=PATH | {"offset", "version"},
        spelled=ATTEMPT,
        extra=(PATHS,),
        more=MORE,
    ),
    Command(
        "put",
        api.UPLOAD,
        act=put,
        about="Copy files and directories into a workload.",
        hidden=PATH | {"mode", "part", "offset"},
        spelled=ATTEMPT,
        extra=(
            Flag(
                ("words",),
                "What to copy (- is standard input), and where to.",
                {"metavar": "LOCAL… ID:PATH", "nargs": "+"},
            ),
        ),
        also=(api.UNPACK, api.STAT, api.DELETE),
        more=MORE,
    ),
    Command(
        "get",
        api.DOWNLOAD,
        act=get,
        about="Copy a file or a directory out of a workload.",
        hidden=PATH | {"offset", "version"},
        spelled=ATTEMPT,
        extra=(
            Flag(("where",), "What to copy.", {"metavar": "ID:PATH"}, complete="workload"),
            Flag(("local",), "Where to (.; - is standard output).", {"metavar": "LOCAL", "nargs": "?", "default": "."}),
        ),
        also=(api.PACK, api.STAT),
        more=MORE,
    ),
    Command(
        "rm",
        api.DELETE,
        act=remove,
        about="Take files away.",
        hidden=PATH,
        spelled=ATTEMPT | {"recursive": Spelling(flag="r")},
        extra=(PATHS,),
    ),
    Command(
        "mkdir",
        api.MKDIR,
        act=make_directories,
        about="Make directories.",
        hidden=PATH,
        spelled=ATTEMPT | {"parents": Spelling(flag="p")},
        extra=(PATHS,),
    ),
    Command(
        "mv",
        api.RENAME,
        act=move,
        about="Give a file another path in the same workload.",
        hidden=PATH | {"target"},
        spelled=ATTEMPT | {"replace": Spelling(flag="f")},
        extra=(
            Flag(("where",), "What to move.", {"metavar": "ID:PATH"}, complete="workload"),
            Flag(("to",), "Its new path, or a directory to move it into.", {"metavar": "[ID:]PATH"}),
        ),
        also=(api.STAT,),
    ),
    Command(
        "watch",
        api.STAT,
        act=watch,
        about="What changes below a path, as it happens.",
        hidden=PATH | {"follow"},
        spelled=ATTEMPT,
        extra=(WHERE, Flag(("-r", "--recursive"), "Also what is in the directories below.")),
        more=WATCH_MORE,
    ),
)
