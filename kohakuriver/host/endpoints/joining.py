"""How machines come into the cluster, and how their runners are no longer believed."""

import logging
import secrets
import sqlite3

from kohakuriver.host.state import Host
from kohakuriver.host.store import audit, join_tokens, nodes, runner_keys
from kohakuriver.host.store.audit import Deed
from kohakuriver.host.store.join_tokens import JoinTokenRow
from kohakuriver.host.store.runner_keys import RunnerKeyRow
from kohakuriver.model import join_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import Conflict, NotAllowed, NotFound
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import rfc3339
from kohakuriver.wire import joining
from kohakuriver.wire.serve import on, on_text

log = logging.getLogger(__name__)
NONCE_BYTES = 32
NOT_GOOD = "the join token is not good (any more): `kohakuriver host join-token` makes a new one"


async def join(host: Host, caller: Caller, asked: api.Join) -> api.Joined:
    """Agree on a key; one that asks again because our answer was lost gets the same once more."""
    join_id = joining.join_id_of(caller.name)
    assert join_id is not None  # the guard let nobody else in
    now, known = host.clock.now(), host.registry.nodes.get(asked.hostname)
    is_same = host.keys.proves(asked.hostname, asked.nonce, asked.proof)
    is_alive = known and known.online and known.reported and host.keys.find(asked.hostname) and not is_same
    alive_at = known.row.url if known and is_alive else ""
    fresh = RunnerKeyRow(asked.hostname, join_id, asked.nonce, secrets.token_hex(NONCE_BYTES), False, now)
    agreed: list[RunnerKeyRow] = []

    def agree(tx: sqlite3.Connection) -> None:
        before = runner_keys.find(tx, asked.hostname)
        if before and not before.revoked and (before.join_id, before.runner_nonce) == (join_id, asked.nonce):
            agreed[:] = [before]
            return
        token = join_tokens.find(tx, join_id, now)
        _check(token, asked, alive_at)
        join_tokens.use(tx, join_id)
        runner_keys.save(tx, fresh)
        detail = f"join token {join_id}{', again' if before else ''}"
        audit.record(tx, caller, Deed("node.join", f"node:{asked.hostname}", detail), now)
        agreed[:] = [fresh]

    await host.keys.commit(asked.hostname, agree)
    _was_not_heard(host, asked.hostname)
    log.info("a machine has joined node=%s join_token=%d address=%s", asked.hostname, join_id, caller.address)
    return api.Joined(cluster_id=host.cluster_id, nonce=agreed[0].host_nonce)


def _check(token: JoinTokenRow | None, asked: api.Join, alive_at: str) -> None:
    """Raise NotAllowed for a token that is not good for this, Conflict when another runner of the name is alive."""
    if token is None:
        raise NotAllowed(NOT_GOOD)
    if token.node is not None and token.node != asked.hostname:
        raise NotAllowed(f"hostname: the join token is for node {token.node}, not for {asked.hostname}")
    if alive_at and token.node is None:
        raise Conflict(
            f"another runner named {asked.hostname} is alive at {alive_at}: give this machine another name "
            f"(RUNNER_HOSTNAME), or let it take over with `kohakuriver host join-token --node {asked.hostname}`"
        )


async def revoke(host: Host, caller: Caller, asked: api.RevokeNode) -> Nothing:
    """From now on nobody signs under that name, and nothing is sent there."""
    now = host.clock.now()

    def close(tx: sqlite3.Connection) -> None:
        before = runner_keys.find(tx, asked.hostname)
        if before is None:
            nodes.get(tx, asked.hostname)  # one that signs with the cluster's secret, or NotFound
        runner_keys.save(tx, RunnerKeyRow(asked.hostname, 0, "", "", True, now))
        audit.record(tx, caller, Deed("node.revoke", f"node:{asked.hostname}", asked.reason), now)

    await host.keys.commit(asked.hostname, close)
    _was_not_heard(host, asked.hostname)
    log.warning("a runner is not believed any more node=%s by=%s", asked.hostname, caller.name)
    return Nothing()


async def rotate_key(host: Host, caller: Caller, asked: api.RotateKey) -> Nothing:
    await host.key_rotation.rotate(caller, asked.hostname)
    return Nothing()


def _was_not_heard(host: Host, hostname: str) -> None:
    """Whoever spoke under that name until now has no key any more: he gets no tasks, and keeps nobody from his place."""
    if hostname in host.registry.nodes:
        node = host.registry.nodes[hostname]
        node.heard_at, node.reported = 0.0, False


async def create_token(host: Host, caller: Caller, asked: api.CreateJoinToken) -> api.CreatedJoinToken:
    join_id, now = host.ids.next(), host.clock.now()
    row = JoinTokenRow(join_id, asked.node, asked.uses, asked.uses, caller.name, now, now + asked.ttl_seconds)
    detail = f"uses={asked.uses} ttl_seconds={asked.ttl_seconds} node={asked.node or 'any'}"

    def create(tx: sqlite3.Connection) -> None:
        join_tokens.sweep(tx, now)
        join_tokens.insert(tx, row)
        audit.record(tx, caller, Deed("node.token.create", f"join-token:{join_id}", detail), now)

    await host.db.write(create)
    token = joining.Token(join_id, joining.token_secret(host.keys.master, join_id), _pinned(host))
    return api.CreatedJoinToken(token=token.text, made=_told(row))


def _pinned(host: Host) -> str:
    return host.identity.ca_fingerprint if host.identity else ""


async def show_ca(host: Host, caller: Caller, asked: Nothing) -> str:
    if host.identity is None:
        raise NotFound("this host does not speak TLS")
    return host.identity.ca_pem


async def list_tokens(host: Host, caller: Caller, asked: Nothing) -> list[api.JoinToken]:
    now = host.clock.now()
    return [_told(row) for row in await host.db.read(lambda tx: join_tokens.every(tx, now))]


async def revoke_token(host: Host, caller: Caller, asked: api.JoinId) -> Nothing:
    def delete(tx: sqlite3.Connection) -> None:
        join_tokens.delete(tx, asked.join_id)
        audit.record(tx, caller, Deed("node.token.revoke", f"join-token:{asked.join_id}"), host.clock.now())

    await host.db.write(delete)
    return Nothing()


def _told(row: JoinTokenRow) -> api.JoinToken:
    return api.JoinToken(
        join_id=row.join_id,
        node=row.node,
        uses=row.uses,
        uses_left=row.uses_left,
        created_by=row.created_by,
        created_at=rfc3339(row.created_at),
        expires_at=rfc3339(row.expires_at),
    )


ANSWERS = [
    on(api.NODE_JOIN, join),
    on(api.NODE_REVOKE, revoke),
    on(api.NODE_ROTATE_KEY, rotate_key),
    on_text(api.TLS_CA, show_ca),
    on(api.JOIN_TOKEN_LIST, list_tokens),
    on(api.JOIN_TOKEN_CREATE, create_token),
    on(api.JOIN_TOKEN_REVOKE, revoke_token),
]
