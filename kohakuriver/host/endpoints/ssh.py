"""The SSH keys of accounts, and what the SSH port shows of itself."""

import sqlite3

from kohakuriver.host.auth.accounts import Changed
from kohakuriver.host.endpoints.auth import account_of, end_login, person_meant
from kohakuriver.host.services.ssh.people import Visit
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, ssh_keys
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.ssh_keys import KeyRow
from kohakuriver.model import ssh_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.auth_api import WhoseLogins
from kohakuriver.model.errors import Conflict
from kohakuriver.model.public_key import read_public_key
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.relay import relay
from kohakuriver.wire.serve import Bindable, on
from kohakuriver.wire.sockets import Socket

MOST_KEYS = 50


async def list_keys(host: Host, caller: Caller, asked: WhoseLogins) -> list[api.KeyInfo]:
    user = person_meant(host, caller, asked.user)
    rows = [row for row in host.auth.accounts.keys.values() if row.user_id == user.user_id]
    return [_told(row, user.name) for row in sorted(rows, key=lambda row: row.key_id)]


def _told(row: KeyRow, owner: str) -> api.KeyInfo:
    key = read_public_key(row.public_key)
    return api.KeyInfo(
        key_id=row.key_id,
        owner=owner,
        name=row.name,
        role=row.role,
        algorithm=key.algorithm,
        fingerprint=key.fingerprint,
        created_at=rfc3339(row.created_at),
        last_used_at=rfc3339(row.last_used_at) if row.last_used_at else None,
    )


async def add_key(host: Host, caller: Caller, asked: api.AddKey) -> api.KeyInfo:
    user, key, now = account_of(host, caller), read_public_key(asked.public_key), host.clock.now()
    name = asked.name or _name_in(key.comment)
    row = KeyRow(host.ids.next(), user.user_id, name, caller.role, key.text, now)

    def add(tx: sqlite3.Connection) -> Changed[None]:
        if len(ssh_keys.of_user(tx, user.user_id)) >= MOST_KEYS:
            raise Conflict(f"you have {MOST_KEYS} SSH keys; delete one first")
        ssh_keys.insert(tx, row)
        audit.record(tx, caller, Deed("auth.key.add", f"key:{row.key_id}", f"{row.name}, {key.fingerprint}"), now)
        return Changed(None, frozenset({user.user_id}))

    await host.auth.accounts.commit(add)
    return _told(row, user.name)


def _name_in(comment: str) -> str:
    """The comment of a key, as far as it can be shown."""
    return "".join(letter for letter in comment if letter.isprintable())[:100].strip() or "key"


async def delete_key(host: Host, caller: Caller, asked: api.KeyId) -> Nothing:
    row = host.auth.accounts.keys[asked.key_id]
    deed = Deed("auth.key.delete", f"key:{asked.key_id}", row.name)
    return await end_login(host, caller, row, lambda tx: ssh_keys.delete(tx, asked.key_id), deed)


async def ssh_port(host: Host, caller: Caller, asked: Nothing) -> api.SshPort:
    return await host.ssh.shown()


async def to_workload(host: Host, caller: Caller, asked: api.SshTo, socket: Socket) -> None:
    proxy = await host.ssh.ready()
    far = await proxy.reach(Visit(caller, shown_as=asked.shown_as), str(asked.task_id))
    await socket.open()
    await relay(socket, far.socket)


ANSWERS: list[Bindable[Host]] = [
    on(api.KEY_LIST, list_keys),
    on(api.KEY_ADD, add_key),
    on(api.KEY_DELETE, delete_key),
    on(api.SSH_PORT, ssh_port),
    on_channel(api.SSH_TO, to_workload),
]
