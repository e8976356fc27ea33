"""The images of nodes: which there are, and bringing an environment to nodes before a task needs it."""

import asyncio
from collections.abc import Awaitable, Sequence

from kohakuriver.host.services.node_registry import LiveNode
from kohakuriver.host.state import Host
from kohakuriver.host.store import audit
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import docker_api as api
from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.image import SyncPhase, SyncState, Tarball
from kohakuriver.model.runner_api import Nothing
from kohakuriver.wire.call import Peer
from kohakuriver.wire.serve import on

SLOW_SECONDS = 30.0  # a daemon with many images under load


async def images(host: Host, caller: Caller, asked: api.OnNode) -> list[api.ImagesOnNode]:
    nodes = _nodes(host, [asked.node] if asked.node else [])
    return list(await asyncio.gather(*(_images_on(host, node) for node in nodes)))


async def _images_on(host: Host, node: LiveNode) -> api.ImagesOnNode:
    try:
        found = await _peer(host, node).call(runner_api.IMAGES, Nothing(), SLOW_SECONDS)
    except RiverError as why:
        return api.ImagesOnNode(node=node.row.hostname, images=[], error=str(why))
    return api.ImagesOnNode(node=node.row.hostname, images=found)


async def sync(host: Host, caller: Caller, asked: api.SyncEnvironment) -> list[api.NodeSync]:
    tarball = await _newest(host, asked.name)
    nodes = _nodes(host, asked.nodes)
    deed = Deed("docker.sync", f"environment:{asked.name}", " ".join(node.row.hostname for node in nodes))
    await host.db.write(lambda tx: audit.record(tx, caller, deed, host.clock.now()))

    async def begin(node: LiveNode) -> SyncState:
        return await _peer(host, node).call(runner_api.SYNC, runner_api.SyncImage(tarball=tarball), SLOW_SECONDS)

    return list(await asyncio.gather(*(_told(node, tarball, begin(node)) for node in nodes)))


async def sync_state(host: Host, caller: Caller, asked: api.SyncEnvironment) -> list[api.NodeSync]:
    tarball = await _newest(host, asked.name)

    async def look(node: LiveNode) -> SyncState:
        return await _peer(host, node).call(runner_api.SYNC_SHOW, runner_api.WhichSync(stem=tarball.stem), SLOW_SECONDS)

    return list(await asyncio.gather(*(_told(node, tarball, look(node)) for node in _nodes(host, asked.nodes))))


async def _told(node: LiveNode, tarball: Tarball, asking: Awaitable[SyncState]) -> api.NodeSync:
    try:
        state = await asking
    except RiverError as why:
        state = SyncState(phase=SyncPhase.FAILED, message=str(why))
    return api.NodeSync(node=node.row.hostname, tarball=tarball.stem, sync=state)


async def _newest(host: Host, name: str) -> Tarball:
    found = await asyncio.to_thread(host.environments.tarballs.newest, name)
    if found is None:
        raise NotFound(f"there is no tarball of environment {name}: make one with `docker tarball create {name}`")
    return found


def _nodes(host: Host, names: Sequence[str]) -> list[LiveNode]:
    """Those that are named, or all that are online; raises NotFound."""
    if names:
        return [host.registry.get(name) for name in dict.fromkeys(names)]
    return [node for _, node in sorted(host.registry.nodes.items()) if node.online]


def _peer(host: Host, node: LiveNode) -> Peer:
    return host.scheduler.peers.at(node.row.hostname, node.row.url, node.row.tls_fingerprint)


ANSWERS = [on(api.IMAGES, images), on(api.SYNC, sync), on(api.SYNC_SHOW, sync_state)]
