"""How the cluster is: for people, for load balancers, for Prometheus, and as OpenAPI."""

from collections.abc import Mapping

from kohakuriver import __version__
from kohakuriver.host.services.node_manager import (
    NodeResources,
    get_node_available_cores,
    get_node_available_gpus,
    get_node_available_memory,
)
from kohakuriver.host.services.node_registry import LiveNode
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.state import Host
from kohakuriver.host.store import facts, tasks
from kohakuriver.model import host_api, openapi
from kohakuriver.model.access import Caller
from kohakuriver.model.codec import JsonObject
from kohakuriver.model.errors import Unavailable
from kohakuriver.model.host_api import Health, NodeHealth
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.runner_api import Nothing
from kohakuriver.wire.serve import on, on_text


async def health(host: Host, caller: Caller, asked: Nothing) -> Health:
    resources = host.registry.resources(await host.db.read(tasks.live))
    counts = await host.db.read(tasks.counts)
    up = [name for name, node in host.registry.nodes.items() if node.online and name in resources]
    there = [resources[name] for name in up]
    return Health(
        version=__version__,
        cluster_id=host.cluster_id,
        auth_enabled=host.auth.enabled,
        nodes_online=len(up),
        nodes_total=len(resources),
        cores_total=sum(node.cores for node in there),
        cores_free=sum(map(get_node_available_cores, there)),
        memory_total_bytes=sum(node.memory_bytes for node in there),
        memory_free_bytes=sum(map(get_node_available_memory, there)),
        gpus_total=sum(len(node.gpus) for node in there),
        gpus_free=sum(len(get_node_available_gpus(node)) for node in there),
        tasks={status: counts.get(status, 0) for status in Status},
        nodes=[_node_health(host.registry.nodes[name], resources[name]) for name in sorted(resources)],
    )


def _node_health(node: LiveNode, resources: NodeResources) -> NodeHealth:
    return NodeHealth(
        hostname=node.row.hostname,
        status="online" if node.online else "offline",
        cores=resources.cores,
        cores_free=get_node_available_cores(resources),
        memory_bytes=resources.memory_bytes,
        gpus=len(resources.gpus),
        gpus_free=len(get_node_available_gpus(resources)),
        tasks_running=len(resources.holdings),
        history=list(node.samples),
    )


async def healthz(host: Host, caller: Caller, asked: Nothing) -> str:
    """Lives: the store answers and no loop hangs."""
    await host.db.read(facts.ping)
    stalled = host.loops.stalled(host.clock.monotonic())
    if stalled:
        raise Unavailable(f"loops are stalled: {', '.join(stalled)}")
    return "ok\n"


async def metrics(host: Host, caller: Caller, asked: Nothing) -> str:
    """Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4)."""
    resources = host.registry.resources(await host.db.read(tasks.live))
    counts = await host.db.read(tasks.counts)
    lines = ["# HELP kohakuriver_tasks Tasks by status.", "# TYPE kohakuriver_tasks gauge"]
    lines += [f'kohakuriver_tasks{{status="{status}"}} {counts.get(status, 0)}' for status in Status]
    lines += _node_metrics(host.registry.nodes, resources)
    lines += _overlay_metrics(host.overlay)
    return "\n".join(lines) + "\n"


def _overlay_metrics(overlay: OverlayNetworkManager) -> list[str]:
    if not overlay.enabled:
        return []
    healed = {name: news.healed for name, news in sorted(overlay.news.items())}
    return [
        "# HELP kohakuriver_overlay_healed_total Things of the overlay that were put right, on the host and on each node.",
        "# TYPE kohakuriver_overlay_healed_total counter",
        f"kohakuriver_overlay_healed_total {overlay.healed}",
        *(f'kohakuriver_overlay_healed_total{{node="{name}"}} {count}' for name, count in healed.items()),
    ]


def _node_metrics(nodes: Mapping[str, LiveNode], resources: Mapping[str, NodeResources]) -> list[str]:
    known = {name: (nodes[name], found) for name, found in sorted(resources.items()) if name in nodes}
    families: dict[str, tuple[str, dict[str, float]]] = {
        "node_up": ("Whether a node is heard of.", {n: int(node.online) for n, (node, _) in known.items()}),
        "node_cores": ("Cores of a node.", {n: r.cores for n, (_, r) in known.items()}),
        "node_cores_free": ("Cores nobody has.", {n: get_node_available_cores(r) for n, (_, r) in known.items()}),
        "node_memory_bytes": ("Memory of a node.", {n: r.memory_bytes for n, (_, r) in known.items()}),
        "node_memory_free_bytes": (
            "Memory for new tasks.",
            {n: get_node_available_memory(r) for n, (_, r) in known.items()},
        ),
        "node_gpus": ("GPUs of a node.", {n: len(r.gpus) for n, (_, r) in known.items()}),
        "node_gpus_free": ("GPUs nobody has.", {n: len(get_node_available_gpus(r)) for n, (_, r) in known.items()}),
        "node_clock_skew_seconds": (
            "Its clock less the host's.",
            {n: x.clock_skew_seconds for n, (x, _) in known.items()},
        ),
    }
    lines = []
    for name, (about, values) in families.items():
        lines += [f"# HELP kohakuriver_{name} {about}", f"# TYPE kohakuriver_{name} gauge"]
        lines += [f'kohakuriver_{name}{{node="{node}"}} {value}' for node, value in values.items()]
    return lines


async def describe(host: Host, caller: Caller, asked: Nothing) -> JsonObject:
    return JsonObject(openapi.describe(host_api.ROUTES, "KohakuRiver", __version__))


ANSWERS = [
    on(host_api.HEALTH, health),
    on_text(host_api.HEALTHZ, healthz),
    on_text(host_api.METRICS, metrics),
    on(host_api.OPENAPI, describe),
]
