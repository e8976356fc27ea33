"""The hands of the installer: each action of a plan looked at, and made true, under some root directory."""

import filecmp
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.model.errors import Conflict, Unavailable
from kohakuriver.system.install_plan import (
    SUPERUSER,
    Action,
    Command,
    CopyFile,
    Link,
    MakeDirectory,
    MakeUser,
    Owner,
    Remove,
    RemoveTree,
    RemoveUser,
    Say,
    WriteFile,
)

_COMMAND_SECONDS = 120
_NOLOGIN = "/usr/sbin/nologin"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Hands:
    """Acts under `root`; owners are set only by root, so that a package can be staged by anybody."""

    root: Path

    def place(self, path: str) -> Path:
        """Where a path of the plan lies; raises Conflict when a link on the way leads out of the root."""
        place = self.root / path.lstrip("/")
        if not place.parent.resolve().is_relative_to(self.root.resolve()):
            raise Conflict(f"{place.parent} leads out of {self.root}")
        return place

    def is_done(self, action: Action, changed: bool) -> bool:
        """Whether nothing is left to do; `changed` tells whether an action before this one does something.

        Raises Conflict when something else stands where the action has to put something.
        """
        match action:
            case MakeUser(name) | RemoveUser(name):
                return (self._id("passwd", name) is not None) is isinstance(action, MakeUser)
            case MakeDirectory(path):
                return self._is_directory(action, self.place(path))
            case CopyFile(path) | WriteFile(path):
                return self._is_file(action, self.place(path))
            case Link(path, target):
                return _is_link(self.place(path), target)
            case Remove(path) | RemoveTree(path):
                return not os.path.lexists(self.place(path))
            case Command(_, after_change, while_exists):
                gone = while_exists and not os.path.lexists(self.place(while_exists))
                return bool(gone) or (after_change and not changed)
            case Say():
                return True

    def do(self, action: Action) -> None:
        """Make the action true; raises OSError, or Unavailable when a program that it runs fails."""
        match action:
            case MakeUser() | RemoveUser():
                _run(self._user_command(action))
            case MakeDirectory(path, owner, mode):
                self._make_directory(self.place(path), owner, mode)
            case CopyFile(path, source, mode):
                self._put(self.place(path), source, Owner(), mode)
            case WriteFile(path, text, owner, mode):
                self._put(self.place(path), text, owner, mode)
            case Link(path, target):
                _link(self.place(path), target)
            case Remove(path):
                self.place(path).unlink()
            case RemoveTree(path, only_if_empty):
                _remove_tree(self.place(path), only_if_empty)
            case Command(words):
                _run(words)
            case Say():
                pass

    def _id(self, table: str, name: str) -> int | None:
        """The number of a user ("passwd") or group ("group") in the root's own table; None when it has none."""
        if self.root == Path("/"):
            try:
                return pwd.getpwnam(name).pw_uid if table == "passwd" else grp.getgrnam(name).gr_gid
            except KeyError:
                return None
        if name == SUPERUSER:
            return 0
        file = self.root / "etc" / table
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return next((int(line.split(":")[2]) for line in lines if line.startswith(f"{name}:")), None)

    def _ids(self, owner: Owner) -> tuple[int | None, int | None]:
        return self._id("passwd", owner.user), self._id("group", owner.group)

    def _user_command(self, action: MakeUser | RemoveUser) -> tuple[str, ...]:
        where = () if self.root == Path("/") else ("--prefix", str(self.root))
        if isinstance(action, RemoveUser):
            return ("userdel", *where, action.name)
        group = ("--gid", action.name) if self._id("group", action.name) is not None else ("--user-group",)
        home = ("--home-dir", action.home, "--no-create-home")
        return ("useradd", *where, "--system", *group, *home, "--shell", _NOLOGIN, action.name)

    def _is_owned(self, status: os.stat_result, owner: Owner, mode: int) -> bool:
        mine = os.geteuid() != 0 or (status.st_uid, status.st_gid) == self._ids(owner)
        return mine and status.st_mode & 0o7777 == mode

    def _is_directory(self, action: MakeDirectory, place: Path) -> bool:
        if not os.path.lexists(place):
            return False
        if place.is_symlink() or not place.is_dir():
            raise Conflict(f"{place} stands in the way: it is no directory")
        return self._is_owned(place.stat(), action.owner, action.mode)

    def _is_file(self, action: CopyFile | WriteFile, place: Path) -> bool:
        if not os.path.lexists(place):
            return False
        if place.is_symlink() or not place.is_file():
            raise Conflict(f"{place} stands in the way: it is no plain file")
        if isinstance(action, CopyFile):
            same, owner = filecmp.cmp(action.source, place, shallow=False), Owner()
        else:
            same, owner = action.precious or place.read_bytes() == action.text.encode(), action.owner
        precious = isinstance(action, WriteFile) and action.precious
        return precious or (same and self._is_owned(place.stat(), owner, action.mode))

    def _make_directory(self, place: Path, owner: Owner, mode: int) -> None:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._own(descriptor, owner, mode)
        finally:
            os.close(descriptor)

    def _put(self, place: Path, content: str | Path, owner: Owner, mode: int) -> None:
        """Write beside and rename, so that a program that runs from the old file keeps it."""
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, fresh = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with open(descriptor, "wb") as file:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, _COPY_BYTES)
                else:
                    file.write(content.encode())
                self._own(file.fileno(), owner, mode)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, place)
        finally:
            Path(fresh).unlink(missing_ok=True)

    def _own(self, descriptor: int, owner: Owner, mode: int) -> None:
        if os.geteuid() == 0:
            uid, gid = self._ids(owner)
            if uid is None or gid is None:
                raise Unavailable(f"there is no user {owner.user} with a group {owner.group}")
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)


def _is_link(place: Path, target: str) -> bool:
    if not os.path.lexists(place):
        return False
    if not place.is_symlink():
        raise Conflict(f"{place} stands in the way: it is no link of ours; remove it first")
    return os.readlink(place) == target


def _link(place: Path, target: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _remove_tree(place: Path, only_if_empty: bool) -> None:
    if not only_if_empty:
        shutil.rmtree(place)
    elif not any(place.iterdir()):
        place.rmdir()


def _run(words: tuple[str, ...]) -> None:
    shown = " ".join(words)
    try:
        done = subprocess.run(
            words,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_SECONDS,
        )
    except FileNotFoundError:
        raise Unavailable(f"there is no program {words[0]} here, so this could not be done: {shown}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no end after {_COMMAND_SECONDS} s: {shown}") from None
    if done.returncode:
        raise Unavailable(f"exit code {done.returncode} of: {shown}: {' '.join(done.stdout.split())}")
