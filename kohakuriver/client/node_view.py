"""How nodes and the cluster are shown to a person."""

from collections.abc import Iterator, Sequence

from kohakuriver.client.output import Column, Screen, Style, Table, ago, field_lines
from kohakuriver.model.host_api import Health, NodeHealth, Orphan
from kohakuriver.model.join_api import JoinToken
from kohakuriver.model.node import Gpu, Node, NodeStatus
from kohakuriver.model.units import show_bytes, show_seconds, unix_seconds

BARS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 20


def status_word(node: Node) -> str:
    if node.draining:
        return "draining" if node.status is NodeStatus.ONLINE else f"{node.status} (draining)"
    return str(node.status)


def style_of(node: Node) -> Style:
    if node.status is NodeStatus.OFFLINE:
        return Style.BAD
    return Style.WARN if node.draining else Style.GOOD


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def of(free: object, total: object) -> str:
    return f"{free}/{total}"


def note(node: Node) -> str:
    """What an admin should know, in a line."""
    return "; ".join(filter(None, [node.drain_reason if node.draining else "", *node.warnings]))


def node_table(screen: Screen, now: float) -> Table[Node]:
    columns: list[Column[Node]] = [
        Column("NODE", lambda n: n.hostname),
        Column("STATUS", status_word, style=style_of),
        Column("CORES", lambda n: of(n.cores_free, n.cores), right=True, leaves=2),
        Column("GPUS", lambda n: of(len(n.gpus_free), len(n.gpus)), right=True, leaves=3),
        Column(
            "MEMORY", lambda n: of(show_bytes(n.memory_free_bytes), show_bytes(n.memory_bytes)), right=True, leaves=4
        ),
        Column("TASKS", lambda n: str(n.tasks_running), right=True, leaves=5),
        Column("CPU", lambda n: percent(n.metrics.cpu_percent), right=True, leaves=6),
        Column("SEEN", lambda n: ago(n.last_heartbeat_at, now), right=True, leaves=7),
        Column("ENGINE", lambda n: f"{n.engine} {n.engine_version}".strip() or "-", least=6, leaves=9),
        Column("NOTE", note, least=12, leaves=8),
    ]
    return Table(columns, screen)


def node_lines(screen: Screen, nodes: Sequence[Node], now: float) -> Iterator[str]:
    return node_table(screen, now).lines(nodes)


def node_detail(screen: Screen, node: Node, now: float) -> Iterator[str]:
    """Everything about one node, a line for each thing that there is."""
    metrics = node.metrics
    heat = f"{metrics.temperature_celsius:.0f} °C" if metrics.temperature_celsius is not None else ""
    load = f"{metrics.load_1m:.2f}" if metrics.load_1m is not None else ""
    skewed = abs(node.clock_skew_seconds) >= 1
    return field_lines(
        screen,
        [
            ("node", node.hostname),
            ("status", status_word(node)),
            ("drained", node.drain_reason if node.draining else ""),
            ("warnings", list(node.warnings)),
            ("cores", f"{node.cores_free} free of {node.cores}"),
            ("memory", f"{show_bytes(node.memory_free_bytes)} free of {show_bytes(node.memory_bytes)}"),
            ("gpus", f"{len(node.gpus_free)} free of {len(node.gpus)}" if node.gpus else "none"),
            ("", [_gpu(gpu, gpu.index in node.gpus_free) for gpu in metrics.gpus or node.gpus]),
            ("numa", [f"{n.index}: CPUs {spans(n.cpu_ids)}, {show_bytes(n.memory_bytes)}" for n in node.numa_nodes]),
            ("tasks", str(node.tasks_running)),
            ("cpu", percent(metrics.cpu_percent)),
            ("load", load),
            ("memory used", f"{show_bytes(metrics.memory_used_bytes)} of {show_bytes(metrics.memory_total_bytes)}"),
            ("disk used", f"{show_bytes(metrics.disk_used_bytes)} of {show_bytes(metrics.disk_total_bytes)}"),
            ("temperature", heat),
            ("engine", f"{node.engine} {node.engine_version}".strip()),
            ("runner", f"{node.version} at {node.url}".strip()),
            ("machine", node.architecture),
            ("clock", f"{node.clock_skew_seconds:+.1f}s against the host's" if skewed else ""),
            ("registered", _moment(node.registered_at, now)),
            ("seen", _moment(node.last_heartbeat_at, now)),
        ],
    )


def _moment(at: str, now: float) -> str:
    return f"{at} ({ago(at, now)} ago)" if at else ""


def _gpu(gpu: Gpu, free: bool) -> str:
    heat = f"{gpu.temperature_celsius:.0f} °C" if gpu.temperature_celsius is not None else ""
    used = f"{show_bytes(gpu.memory_used_bytes)} of {show_bytes(gpu.memory_bytes)}"
    busy = f"{percent(gpu.utilization_percent)} busy" if gpu.utilization_percent is not None else ""
    return ", ".join(filter(None, [f"{gpu.index}: {gpu.name}", "free" if free else "taken", used, busy, heat]))


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers with runs drawn together: `0-3,8`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def spark(values: Sequence[float | None], columns: int = SPARK_COLUMNS) -> str:
    """Percentages as a row of bars, oldest first, neighbours averaged so that it has at most `columns` bars."""
    each = max(1, -(-len(values) // columns))
    groups = [[v for v in values[i : i + each] if v is not None] for i in range(0, len(values), each)]
    return "".join(BARS[min(7, int(sum(g) / len(g) * 8 / 100))] if g else " " for g in groups)


def health_lines(screen: Screen, nodes: Sequence[NodeHealth]) -> Iterator[str]:
    """A line for each node: its last minute."""
    plain = screen.ellipsis != "…"  # this terminal cannot draw bars
    columns: list[Column[NodeHealth]] = [
        Column("NODE", lambda n: n.hostname),
        Column("STATUS", lambda n: n.status, style=lambda n: Style.GOOD if n.status == "online" else Style.BAD),
        Column("CPU", lambda n: percent(n.history[-1].cpu_percent) if n.history else "-", right=True),
        Column("LAST MINUTE", lambda n: "-" if plain else spark([s.cpu_percent for s in n.history]), leaves=1),
        Column("MEMORY", _memory, right=True, leaves=2),
        Column("CORES", lambda n: of(n.cores_free, n.cores), right=True, leaves=4),
        Column("GPUS", lambda n: of(n.gpus_free, n.gpus), right=True, leaves=5),
        Column("TASKS", lambda n: str(n.tasks_running), right=True, leaves=3),
    ]
    return Table(columns, screen).lines(nodes)


def join_token_lines(screen: Screen, tokens: Sequence[JoinToken], now: float) -> Iterator[str]:
    columns: list[Column[JoinToken]] = [
        Column("TOKEN", lambda t: str(t.join_id)),
        Column("NODE", lambda t: t.node or "any"),
        Column("USES", lambda t: of(t.uses_left, t.uses), right=True),
        Column("BY", lambda t: t.created_by, leaves=1),
        Column("LEFT", lambda t: show_seconds(max(0.0, unix_seconds(t.expires_at) - now)), right=True),
    ]
    return Table(columns, screen).lines(tokens)


def orphan_lines(screen: Screen, orphans: Sequence[Orphan], now: float) -> Iterator[str]:
    columns: list[Column[Orphan]] = [
        Column("ID", lambda o: str(o.task_id)),
        Column("ATTEMPT", lambda o: str(o.attempt), right=True, leaves=1),
        Column("KIND", lambda o: o.task_type),
        Column("NAME", lambda o: o.name or "-"),
        Column("OWNER", lambda o: o.owner or "-"),
        Column("STATE", lambda o: str(o.state)),
        Column("UP", lambda o: ago(o.started_at, now), right=True, leaves=2),
    ]
    return Table(columns, screen).lines(orphans)


def _memory(node: NodeHealth) -> str:
    used = show_bytes(node.history[-1].memory_used_bytes) if node.history else "-"
    return of(used, show_bytes(node.memory_bytes))


def summary_lines(screen: Screen, health: Health) -> Iterator[str]:
    """The cluster in one look."""
    return field_lines(
        screen,
        [
            ("cluster", f"{health.cluster_id}, host {health.version}"),
            ("nodes", f"{health.nodes_online} online of {health.nodes_total}"),
            ("cores", f"{health.cores_free} free of {health.cores_total}"),
            ("memory", f"{show_bytes(health.memory_free_bytes)} free of {show_bytes(health.memory_total_bytes)}"),
            ("gpus", f"{health.gpus_free} free of {health.gpus_total}" if health.gpus_total else "none"),
            ("tasks", ", ".join(f"{count} {status}" for status, count in health.tasks.items() if count) or "none"),
        ],
    )


def totals_line(nodes: Sequence[Node]) -> str:
    """One line above a table of nodes."""
    online = [n for n in nodes if n.status is NodeStatus.ONLINE]
    cores = f"{sum(n.cores_free for n in online)} of {sum(n.cores for n in online)} cores free"
    gpus = f"{sum(len(n.gpus_free) for n in online)} of {sum(len(n.gpus) for n in online)} GPUs free"
    return f"{len(online)} of {len(nodes)} nodes online, {cores}, {gpus}, {sum(n.tasks_running for n in nodes)} tasks"
