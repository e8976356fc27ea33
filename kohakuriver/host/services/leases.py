"""When a VPS is to be stopped although nobody asked for it: at the end of its lease, or when nobody uses it; pure.

Whoever uses it is warned before, as long before as half of what it may have, and at most ten minutes.
"""

from dataclasses import dataclass, field

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.units import show_seconds, unix_seconds
from kohakuriver.model.vps import Vps

WARNING_SECONDS, LAST_WARNING_SECONDS = 600.0, 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why it is to be stopped now (empty: it is not), and what its user should know before that (empty: nothing).

    `urgency` grows from 0 (nothing is due) each time that he should be told again.
    """

    why: str = ""
    notice: str = ""
    urgency: int = 0


def judge(vps: Vps, idle_seconds: float | None, now: float) -> Verdict:
    """What is due at this moment (UTC unix seconds); `idle_seconds` is None where that is not known."""
    for allowed, left_seconds, what in (_lease(vps, now), _idleness(vps, idle_seconds)):
        if left_seconds is None or allowed is None:
            continue
        if left_seconds <= 0:
            return Verdict(why=f"{what} {show_seconds(allowed)}")
        if left_seconds <= min(WARNING_SECONDS, allowed / 2):
            name = vps.name or vps.task_id
            return Verdict(
                notice=f"it will be stopped in {show_seconds(left_seconds)}: {what} {show_seconds(allowed)}; "
                f"to go on: kohakuriver vps extend {name} 2h",
                urgency=1 if left_seconds > LAST_WARNING_SECONDS else 2,
            )
    return Verdict()


def _lease(vps: Vps, now: float) -> tuple[float | None, float | None, str]:
    left = unix_seconds(vps.expires_at) - now if vps.expires_at else None
    return vps.lease_seconds, left, "the end of its lease of"


def _idleness(vps: Vps, idle_seconds: float | None) -> tuple[float | None, float | None, str]:
    known = vps.idle_stop_seconds is not None and idle_seconds is not None
    left = (vps.idle_stop_seconds or 0) - (idle_seconds or 0.0) if known else None
    return vps.idle_stop_seconds, left, "nobody was in it and nothing worked in it for"


@dataclass(slots=True)
class IdleClocks:
    """Since when (monotonic seconds) nothing has happened in VPS; begun anew with the host, so none is stopped early."""

    _since: dict[Snowflake, float] = field(default_factory=dict)

    def look(self, task_id: Snowflake, in_use: bool, now: float) -> None:
        """It is in use now, or it is not."""
        if in_use or task_id not in self._since:
            self._since[task_id] = now

    def seconds(self, task_id: Snowflake, now: float) -> float | None:
        """For how long nothing has happened; None where nobody looks."""
        since = self._since.get(task_id)
        return None if since is None else now - since

    def keep_only(self, task_ids: set[Snowflake]) -> None:
        """Forget all others."""
        for task_id in self._since.keys() - task_ids:
            del self._since[task_id]
