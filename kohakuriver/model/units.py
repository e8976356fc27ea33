"""Words people type and the quantities they mean: "4G", "2h", "node:1::0,1", RFC 3339 times."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = re.compile(r"(\d{1,15})(?:\.(\d{1,3}))?(Ki|Mi|Gi|Ti|[KMGT]?)B?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:\d{1,9}[smhd]?)(?:\d{1,9}[smhd])*", re.ASCII)
_TARGET = re.compile(r"(?P<host>[^:]+)(?::(?P<numa>\d{1,3}))?(?:::(?P<gpus>\d{1,3}(?:,\d{1,3})*))?", re.ASCII)


def parse_bytes(text: str) -> int:
    """Bytes of a memory word: decimal for K M G T, binary for Ki Mi Gi Ti; raises ValueError."""
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text[:40]!r} is not a size (examples: 512M, 8G, 4Gi)")
    whole, fraction, unit = found[1], found[2] or "", found[3]
    factor = BINARY.get(unit.capitalize()) or DECIMAL[unit.upper()]
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def show_bytes(count: int | None) -> str:
    """A size for people: the largest decimal unit that leaves at least one, such as `8.0G`."""
    if count is None:
        return "-"
    for unit in "TGMK":
        if count >= DECIMAL[unit]:
            return f"{count / DECIMAL[unit]:.1f}{unit}"
    return f"{count}B"


def parse_seconds(text: str) -> int:
    """Seconds of a duration word such as `90`, `2h`, `1h30m`; raises ValueError."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(f"{text[:40]!r} is not a duration (examples: 90, 30m, 2h, 1d12h)")
    parts = re.findall(r"(\d+)([smhd]?)", text.strip())
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def show_seconds(seconds: float | None) -> str:
    """A duration for people: the two largest units, such as `1h02m`."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a task must run: a host, perhaps one NUMA node of it, perhaps GPUs by index."""

    hostname: str
    numa_node: int | None = None
    gpus: tuple[int, ...] = ()


def parse_target(text: str) -> Target:
    """The parts of `host[:numa][::gpu,gpu]`; raises ValueError."""
    found = _TARGET.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:60]!r} is not a target (host, host:NUMA, host::GPU,GPU or host:NUMA::GPU,GPU)")
    gpus = tuple(int(g) for g in found["gpus"].split(",")) if found["gpus"] else ()
    if len(set(gpus)) < len(gpus):
        raise ValueError(f"{text[:60]!r} names a GPU twice")
    return Target(found["host"], int(found["numa"]) if found["numa"] else None, gpus)


def rfc3339(seconds: float) -> str:
    """UTC RFC 3339 with milliseconds of unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def unix_seconds(text: str) -> float:
    """Unix seconds of an RFC 3339 time; raises ValueError, also when it names no zone."""
    at = datetime.fromisoformat(re.sub(r":60(?=\D|$)", ":59", text.upper()))  # a leap second, which no clock here shows
    if at.tzinfo is None:
        raise ValueError(f"{text[:40]!r} names no time zone")
    return at.timestamp()
