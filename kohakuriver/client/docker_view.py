"""How environments, tarballs and images are shown to a person."""

from collections.abc import Iterator, Sequence

from kohakuriver.client.output import Column, Screen, Style, Table, ago
from kohakuriver.model.docker_api import Environment, ImagesOnNode, Job, JobState, NodeSync
from kohakuriver.model.image import NodeImage, SyncPhase, Tarball
from kohakuriver.model.units import rfc3339, show_bytes

ID_CHARACTERS = 12
JOB_STYLES = {JobState.DONE: Style.GOOD, JobState.FAILED: Style.BAD}
SYNC_STYLES = {SyncPhase.PRESENT: Style.GOOD, SyncPhase.FAILED: Style.BAD}


def environment_lines(screen: Screen, found: Sequence[Environment], now: float) -> Iterator[str]:
    columns: list[Column[Environment]] = [
        Column("ENVIRONMENT", lambda e: e.name),
        Column("STATUS", lambda e: e.status, style=lambda e: Style.GOOD if e.status == "running" else Style.FAINT),
        Column("FROM", lambda e: e.image, least=12, leaves=2),
        Column("NEWEST TARBALL", lambda e: e.tarball or "-", least=12, leaves=1),
        Column("AGE", lambda e: ago(e.created_at, now), right=True, leaves=3),
    ]
    return Table(columns, screen).lines(found)


def tarball_lines(screen: Screen, found: Sequence[Tarball], now: float) -> Iterator[str]:
    columns: list[Column[Tarball]] = [
        Column("TARBALL", lambda t: t.stem),
        Column("SIZE", lambda t: show_bytes(t.size_bytes), right=True),
        Column("AGE", lambda t: ago(rfc3339(t.made_at), now), right=True, leaves=2),
        Column("SHA-256", lambda t: t.digest, least=12, leaves=1),
    ]
    return Table(columns, screen).lines(found)


def job_lines(screen: Screen, found: Sequence[Job], now: float) -> Iterator[str]:
    columns: list[Column[Job]] = [
        Column("JOB", lambda j: str(j.job_id), leaves=3),
        Column("WHAT", lambda j: str(j.kind)),
        Column("ENVIRONMENT", lambda j: j.environment),
        Column("STATE", lambda j: str(j.state), style=lambda j: JOB_STYLES.get(j.state, Style.BUSY)),
        Column("BY", lambda j: j.created_by, least=5, leaves=4),
        Column("AGE", lambda j: ago(j.created_at, now), right=True, leaves=5),
        Column("MESSAGE", lambda j: j.message, least=20, leaves=1),
    ]
    return Table(columns, screen).lines(found)


def image_lines(screen: Screen, nodes: Sequence[ImagesOnNode], now: float) -> Iterator[str]:
    """The images of all nodes in one table; nodes that could not be asked come after it."""
    columns: list[Column[tuple[str, NodeImage]]] = [
        Column("NODE", lambda row: row[0]),
        Column("IMAGE", lambda row: ", ".join(row[1].names) or "<none>", least=16),
        Column("ID", lambda row: row[1].image_id.removeprefix("sha256:")[:ID_CHARACTERS], leaves=4),
        Column("SIZE", lambda row: show_bytes(row[1].size_bytes), right=True),
        Column("AGE", lambda row: ago(rfc3339(row[1].created_at), now), right=True, leaves=3),
        Column("TARBALL", lambda row: row[1].tarball or "-", least=10, leaves=2),
        Column("NOTE", lambda row: _note(row[1]), leaves=1),
    ]
    rows = [(node.node, image) for node in nodes for image in node.images]
    yield from Table(columns, screen).lines(rows)
    for node in nodes:
        if node.error:
            yield f"{node.node}: {node.error}"


def _note(image: NodeImage) -> str:
    said = ("ours", image.ours), ("pinned", image.pinned), ("in use", image.in_use)
    return ", ".join(word for word, is_so in said if is_so)


def sync_lines(screen: Screen, nodes: Sequence[NodeSync]) -> Iterator[str]:
    columns: list[Column[NodeSync]] = [
        Column("NODE", lambda n: n.node),
        Column("TARBALL", lambda n: n.tarball),
        Column("STATE", lambda n: str(n.sync.phase), style=lambda n: SYNC_STYLES.get(n.sync.phase, Style.BUSY)),
        Column("MESSAGE", lambda n: n.sync.message, least=16),
    ]
    return Table(columns, screen).lines(nodes)
