"""How VPS, their snapshots and their people are shown to a person."""

from collections.abc import Iterator, Sequence

from kohakuriver.client.output import Column, Screen, Style, Table, ago, field_lines, lasted
from kohakuriver.client.task_view import (
    asked_gpus,
    moment,
    node_text,
    place_text,
    reasons,
    status_word,
    style_of,
    wants,
)
from kohakuriver.model.units import rfc3339, show_bytes, show_seconds, unix_seconds
from kohakuriver.model.vps import Snapshot, SnapshotState, Vps
from kohakuriver.model.vps_api import Assignment

STATES = {SnapshotState.TAKING: Style.BUSY, SnapshotState.READY: Style.GOOD, SnapshotState.FAILED: Style.BAD}


def vps_table(screen: Screen, now: float) -> Table[Vps]:
    columns: list[Column[Vps]] = [
        Column("VPS", lambda v: str(v.task_id)),
        Column("NAME", lambda v: v.name or "-", least=6),
        Column("STATUS", status_word, style=style_of, least=10),
        Column("NODE", lambda v: v.home or v.assigned_node or "-", least=5, leaves=1),
        Column("OWNER", lambda v: v.owner, least=5, leaves=4),
        Column("CORES", lambda v: str(v.required_cores), right=True, leaves=5),
        Column("GPUS", asked_gpus, right=True, leaves=6),
        Column("MEMORY", lambda v: show_bytes(v.required_memory_bytes), right=True, leaves=7),
        Column("AGE", lambda v: ago(v.submitted_at, now), right=True, leaves=8),
        Column("UP", lambda v: lasted(v.started_at, v.completed_at, now), right=True, leaves=3),
        Column("ENDS IN", lambda v: _left(v, now), right=True, leaves=2, style=_style_of_lease),
    ]
    return Table(columns, screen)


def _left(vps: Vps, now: float) -> str:
    return show_seconds(max(0.0, unix_seconds(vps.expires_at) - now)) if vps.expires_at else "-"


def _style_of_lease(vps: Vps) -> Style:
    return Style.WARN if vps.notice else Style.PLAIN


def vps_detail(screen: Screen, vps: Vps, now: float) -> Iterator[str]:
    """Everything about one VPS, a line for each thing that there is."""
    return field_lines(
        screen,
        [
            ("vps", f"{vps.task_id}  {vps.name or ''}".rstrip()),
            ("status", status_word(vps)),
            ("notice", vps.notice or ""),
            ("why", reasons(vps)),
            ("error", vps.error_message or ""),
            ("made from", place_text(vps)),
            ("node", node_text(vps) or (vps.home or "")),
            ("asks for", wants(vps)),
            ("lease", _lease(vps, now)),
            ("idle", _idle(vps)),
            ("ssh keys", f"{vps.ssh_key_mode}" + (f": {vps.ssh_public_key}" if vps.ssh_public_key else "")),
            ("variables", [f"{name}={value}" for name, value in vps.env_vars.items()]),
            ("secrets", [f"{name}=@…" for name in vps.secret_names]),
            ("mounts", vps.additional_mounts),
            ("owner", vps.owner),
            ("made", moment(vps.submitted_at, now)),
            ("started", moment(vps.started_at, now)),
            ("stopped", moment(vps.completed_at, now)),
        ],
    )


def _lease(vps: Vps, now: float) -> str:
    if not vps.lease_seconds:
        return ""
    ends = f", ends in {_left(vps, now)}" if vps.expires_at else ""
    return f"{show_seconds(vps.lease_seconds)}{ends}"


def _idle(vps: Vps) -> str:
    if not vps.idle_stop_seconds:
        return ""
    since = f"for {show_seconds(vps.idle_seconds)} now" if vps.idle_seconds is not None else "not known"
    return f"stops after {show_seconds(vps.idle_stop_seconds)} without use; idle {since}"


def snapshot_table(screen: Screen, now: float) -> Table[Snapshot]:
    columns: list[Column[Snapshot]] = [
        Column("SNAPSHOT", lambda s: str(s.timestamp)),
        Column("STATE", lambda s: str(s.state), style=lambda s: STATES[s.state]),
        Column("AGE", lambda s: ago(rfc3339(s.timestamp), now), right=True, leaves=2),
        Column("KIND", lambda s: "automatic" if s.automatic else "manual", leaves=3),
        Column("SIZE", lambda s: show_bytes(s.size_bytes), right=True),
        Column("IN ALL", lambda s: show_bytes(s.total_bytes), right=True, leaves=4),
        Column("MESSAGE", lambda s: s.error or s.message, least=12, leaves=1),
    ]
    return Table(columns, screen)


def people_lines(screen: Screen, people: Sequence[Assignment], now: float) -> Iterator[str]:
    columns: list[Column[Assignment]] = [
        Column("USER", lambda a: a.user),
        Column("BY", lambda a: a.assigned_by),
        Column("SINCE", lambda a: ago(a.assigned_at, now), right=True),
    ]
    return Table(columns, screen).lines(people)
