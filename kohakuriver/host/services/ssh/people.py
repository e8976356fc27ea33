"""Who comes to the SSH port, and which workload he may reach there.

A person is known by a key. The user name of the login says what he wants: his own name, to go on from here to his
workloads (`ssh -J`); or `WORKLOAD` or `WORKLOAD+LOGIN`, to be in it at once. What is unknown, what is another's and
what is not there are all the same, and take the same steps.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from kohakuriver.host.auth.parts import Auth
from kohakuriver.host.store import tasks, users, vps
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.host.store.workload_use import may_use
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.codec import MAX_SNOWFLAKE, Snowflake
from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.ssh_api import SshTo
from kohakuriver.model.task import Task
from kohakuriver.model.vps import SshKeyMode, Vps
from kohakuriver.system.sqlite import Database

EVERYBODY = "local"  # as in the requests that come while accounts are off
SUFFIX = ".kohakuriver"  # which the configuration of `kohakuriver ssh config` puts behind the names of workloads


@dataclass(frozen=True, slots=True)
class Workload:
    """What somebody may reach, by its id, and by its name if it has one."""

    task_id: Snowflake
    name: str = ""
    is_closed: bool = False  # to SSH

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be called."""
        plain = tuple(filter(None, (str(self.task_id), self.name)))
        return (*plain, *(name + SUFFIX for name in plain))


@dataclass(frozen=True, slots=True)
class Visit:
    """A person, and if he named one the workload and whom he wants to be in it; what he himself calls it."""

    caller: Caller
    workload: Workload | None = None
    login: str = ""
    shown_as: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """The accounts, and what is theirs."""

    auth: Auth
    db: Database

    async def by_key(self, user: str, public_key: str) -> Visit | None:
        """Who comes with this key (`ALGORITHM BASE64`) under that user name; it may be a VPS's own."""
        visit = await self._visit(user, self.auth.accounts.holders(public_key))
        word, _, login = user.partition("+")
        own = await self.db.read(lambda tx: _own_key(tx, word.removesuffix(SUFFIX), public_key))
        return visit or (Visit(own.caller, own.workload, login) if own else None)

    async def by_token(self, user: str, token: str, address: str) -> Visit | None:
        """Who comes with this API token under that user name; raises TooMany after too many wrong ones."""
        taken = self.auth.attempts.begin(address)
        login = self.auth.accounts.recognize(token, TokenRow, address)
        visit = await self._visit(user, [login.caller] if login else [])
        if visit is not None:
            self.auth.attempts.went_well(taken, address)
        return visit

    async def anybody(self, user: str, address: str) -> Visit:
        """Whoever comes while accounts are off: he may do everything; a user name that is no workload is a person's."""
        caller = Caller(EVERYBODY, Role.ADMIN, address=address)
        return await self._visit(user, [caller]) or Visit(caller)

    def inside(self, caller: Caller, workload: Workload, cut: Callable[[], None]) -> AbstractContextManager[None]:
        """While the block runs he is known to be inside, and `cut` is called when he may no longer be."""
        return self.auth.uses.watch(caller, Ownership.WORKLOAD_USE, SshTo(task_id=workload.task_id), cut)

    async def find(self, caller: Caller, word: str) -> Workload:
        """The workload of that id or name; raises NotFound when there is none that he may use."""
        found = await self.db.read(lambda tx: _usable(tx, [caller], word))
        if found is None:
            raise NotFound(f"there is no workload {word[:70]}")
        return found.workload

    async def _visit(self, user: str, callers: Sequence[Caller]) -> Visit | None:
        word, _, login = user.partition("+")
        found = await self.db.read(lambda tx: _usable(tx, callers, word))
        for caller in callers:
            if caller.name == user:
                return Visit(caller)
        return Visit(found.caller, found.workload, login) if found else None


@dataclass(frozen=True, slots=True)
class _Found:
    caller: Caller
    workload: Workload


def _usable(tx: sqlite3.Connection, callers: Sequence[Caller], word: str) -> _Found | None:
    """The first of these callers who may use the workload of that id or name."""
    for caller in callers:
        with suppress(RiverError):  # nothing of that name, or several
            workload = _named(tx, caller, word.removesuffix(SUFFIX))
            if caller.role >= Role.USER and not workload.is_closed and may_use(tx, workload.task_id, caller):
                return _Found(caller, workload)
    return None


def _named(tx: sqlite3.Connection, caller: Caller, word: str) -> Workload:
    """What is called so, for this caller; raises NotFound, Conflict."""
    if word.isascii() and word.isdecimal():
        task = tasks.get(tx, Snowflake(min(int(word), MAX_SNOWFLAKE)))
        return _workload(task)
    return _workload(vps.get(tx, vps.id_of(tx, caller, word)))


def _workload(task: Task) -> Workload:
    is_closed = isinstance(task, Vps) and task.ssh_key_mode is SshKeyMode.DISABLED
    return Workload(task.task_id, task.name or "", is_closed)


def _own_key(tx: sqlite3.Connection, word: str, public_key: str) -> _Found | None:
    """The VPS of that id or name whose own key this is; who has it comes as its owner, and gets no further than there."""
    for each in vps.called(tx, word):
        if public_key and each.ssh_public_key == public_key:
            owner = users.named(tx, each.owner)  # nobody where it was made without accounts, or with ADMIN_SECRET
            if owner is None or (not owner.disabled and owner.role >= Role.USER):
                user_id = owner.user_id if owner else 0
                caller = Caller(each.owner, Role.USER, user_id, f"vps:{each.task_id}", own_only=True)
                return _Found(caller, _workload(each))
    return None
