"""How files of workloads and environments are shown."""

import stat
from collections.abc import Iterator
from time import localtime, strftime

from kohakuriver.client.output import Column, Screen, Style, Table, field_lines
from kohakuriver.model.files import FileEntry, Kind
from kohakuriver.model.units import show_bytes, unix_seconds

KINDS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.LINK: stat.S_IFLNK,
    Kind.PIPE: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.DEVICE: stat.S_IFCHR,
}


def file_table(screen: Screen) -> Table[FileEntry]:
    """A line each, as `ls -l` has it."""
    return Table(
        [
            Column("MODE", mode_text),
            Column("OWNER", lambda entry: f"{entry.uid}:{entry.gid}", leaves=2),
            Column("SIZE", lambda entry: show_bytes(entry.size_bytes) if entry.kind is Kind.FILE else "-", right=True),
            Column("MODIFIED", modified_text, leaves=1),
            Column("NAME", name_text, style=lambda entry: Style.BUSY if entry.kind is Kind.DIRECTORY else Style.PLAIN),
        ],
        screen,
    )


def file_detail(screen: Screen, entry: FileEntry) -> Iterator[str]:
    """All about one."""
    fields = [
        ("name", name_text(entry)),
        ("kind", str(entry.kind)),
        ("size", f"{entry.size_bytes} ({show_bytes(entry.size_bytes)})"),
        ("mode", f"{mode_text(entry)} ({entry.mode:04o})"),
        ("owner", f"{entry.uid}:{entry.gid}"),
        ("modified", entry.modified_at),
    ]
    return field_lines(screen, [(name, text) for name, text in fields])


def mode_text(entry: FileEntry) -> str:
    return stat.filemode(KINDS[entry.kind] | entry.mode)


def modified_text(entry: FileEntry) -> str:
    return strftime("%Y-%m-%d %H:%M", localtime(unix_seconds(entry.modified_at)))


def name_text(entry: FileEntry) -> str:
    slash = "/" if entry.kind is Kind.DIRECTORY and entry.name != "/" else ""
    return f"{entry.name}{slash}" + (f" -> {entry.target}" if entry.target else "")
