"""How accounts, tokens, invitations, groups and the trail are shown to a person."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kohakuriver.client.output import Column, Screen, Style, Table, ago, field_lines
from kohakuriver.model import auth_api as api
from kohakuriver.model.ssh_api import KeyInfo
from kohakuriver.model.units import show_bytes, show_seconds, unix_seconds

if TYPE_CHECKING:
    from kohakuriver.client.session import Session

RESULTS = {"ok": Style.PLAIN, "refused": Style.WARN, "failed": Style.BAD}


def status_lines(screen: Screen, session: "Session", me: api.Me | None, how: str, advice: str) -> Iterator[str]:
    """Where the host is and who we are there; `advice` when nobody is known."""
    protected = "TLS" if session.encrypted else "not encrypted"
    yield from field_lines(
        screen,
        [
            ("cluster", session.settings.cluster),
            ("host", f"{session.address}, {protected}"),
            ("user", f"{me.name} ({me.role.label})" if me else "nobody"),
            ("groups", ", ".join(me.groups) if me else ""),
            ("by", (how or me.by) if me else ""),
            ("until", (me.expires_at or "") if me else ""),
            ("", "" if me else advice),
        ],
    )


def left(at: str, now: float) -> str:
    """How long until an RFC 3339 time."""
    return show_seconds(max(0.0, unix_seconds(at) - now))


def token_lines(screen: Screen, tokens: Sequence[api.TokenInfo], now: float) -> Iterator[str]:
    columns: list[Column[api.TokenInfo]] = [
        Column("TOKEN", lambda t: str(t.token_id)),
        Column("NAME", lambda t: f"{t.name} (this one)" if t.current else t.name, least=12),
        Column("ROLE", lambda t: t.role.label),
        Column("OWNER", lambda t: t.owner, leaves=3),
        Column("AGE", lambda t: ago(t.created_at, now), right=True, leaves=2),
        Column("USED", lambda t: ago(t.last_used_at, now), right=True, leaves=1),
        Column("LEFT", lambda t: left(t.expires_at, now), right=True),
    ]
    return Table(columns, screen).lines(tokens)


def key_lines(screen: Screen, keys: Sequence[KeyInfo], now: float) -> Iterator[str]:
    columns: list[Column[KeyInfo]] = [
        Column("KEY", lambda k: str(k.key_id)),
        Column("NAME", lambda k: k.name, least=12),
        Column("FINGERPRINT", lambda k: k.fingerprint),
        Column("KIND", lambda k: k.algorithm.removeprefix("ssh-").partition("@")[0], leaves=2),
        Column("ROLE", lambda k: k.role.label, leaves=4),
        Column("OWNER", lambda k: k.owner, leaves=3),
        Column("AGE", lambda k: ago(k.created_at, now), right=True, leaves=1),
        Column("USED", lambda k: ago(k.last_used_at, now), right=True),
    ]
    return Table(columns, screen).lines(keys)


def session_lines(screen: Screen, sessions: Sequence[api.SessionInfo], now: float) -> Iterator[str]:
    columns: list[Column[api.SessionInfo]] = [
        Column("SESSION", lambda s: str(s.session_id)),
        Column("OWNER", lambda s: s.owner, leaves=2),
        Column("FROM", lambda s: s.address, least=9),
        Column("AGE", lambda s: ago(s.created_at, now), right=True, leaves=1),
        Column("USED", lambda s: ago(s.last_used_at, now), right=True),
        Column("LEFT", lambda s: left(s.expires_at, now), right=True),
    ]
    return Table(columns, screen).lines(sessions)


def invitation_lines(screen: Screen, invitations: Sequence[api.Invitation], now: float) -> Iterator[str]:
    columns: list[Column[api.Invitation]] = [
        Column("INVITATION", lambda i: str(i.invitation_id)),
        Column("ROLE", lambda i: i.role.label),
        Column("GROUPS", lambda i: ",".join(i.groups) or "-", least=6),
        Column("USES", lambda i: f"{i.uses_left}/{i.uses}", right=True),
        Column("BY", lambda i: i.created_by, leaves=1),
        Column("LEFT", lambda i: left(i.expires_at, now), right=True),
    ]
    return Table(columns, screen).lines(invitations)


def account_lines(screen: Screen, accounts: Sequence[api.Account], now: float) -> Iterator[str]:
    columns: list[Column[api.Account]] = [
        Column("USER", lambda a: a.name),
        Column("ROLE", lambda a: a.role.label),
        Column("STATUS", _state, style=lambda a: Style.BAD if a.disabled else Style.GOOD),
        Column("GROUPS", lambda a: ",".join(a.groups) or "-", least=6),
        Column("AGE", lambda a: ago(a.created_at, now), right=True, leaves=1),
        Column("LOGIN", lambda a: ago(a.last_login_at, now), right=True, leaves=2),
        Column("ID", lambda a: str(a.user_id), leaves=3),
    ]
    return Table(columns, screen).lines(accounts)


def _state(account: api.Account) -> str:
    return "disabled" if account.disabled else "active"


def group_lines(screen: Screen, groups: Sequence[api.Group]) -> Iterator[str]:
    columns: list[Column[api.Group]] = [
        Column("GROUP", lambda g: g.name),
        Column("QUEUED", lambda g: _limit(g.max_queued), right=True, leaves=4),
        Column("RUNNING", lambda g: _limit(g.max_running), right=True, leaves=3),
        Column("VPS", lambda g: _limit(g.max_vps), right=True, leaves=5),
        Column("CORES", lambda g: _limit(g.max_cores), right=True),
        Column("GPUS", lambda g: _limit(g.max_gpus), right=True),
        Column("MEMORY", lambda g: show_bytes(g.max_memory_bytes), right=True),
        Column("MEMBERS", lambda g: ",".join(g.members) or "-", least=10),
    ]
    return Table(columns, screen).lines(groups)


def _limit(limit: int | None) -> str:
    return "-" if limit is None else str(limit)


def trail_table(screen: Screen) -> Table[api.AuditEntry]:
    columns: list[Column[api.AuditEntry]] = [
        Column("AT", lambda e: e.at),
        Column("USER", lambda e: e.user or "-", least=5),
        Column("ACTION", lambda e: e.action, least=8),
        Column("OBJECT", lambda e: e.object or "-", least=8),
        Column("RESULT", lambda e: e.result, style=lambda e: RESULTS.get(e.result, Style.PLAIN)),
        Column("FROM", lambda e: e.address or "-", leaves=2),
        Column("DETAIL", lambda e: e.detail, least=10, leaves=1),
    ]
    return Table(columns, screen)
