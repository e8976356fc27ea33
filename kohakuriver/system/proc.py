"""What the kernel tells in /proc and /sys about CPUs, memory and NUMA nodes.

Every reader takes `Roots`, so that a test (or a look into another system's tree) needs no machine. A file that is
not there, or says something else than expected, is a reading that the machine does not have: None, 0 or empty.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kohakuriver.model.node import NumaNode

_KIB = 1024
_MEMORY_LINE = re.compile(r"^(?:Node\s+\d+\s+)?(\w+):\s+(\d+) kB$", re.MULTILINE)
_CPU_LINE = re.compile(r"^cpu\d+ ", re.MULTILINE)
_MODE_COUNT = 8  # user nice system idle iowait irq softirq steal; the guest times after them are in user and nice
_IDLE_MODES = (3, 4)


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel's two trees are mounted."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


class CpuTimes(NamedTuple):
    """Ticks since boot of all CPUs together."""

    busy: int
    total: int


def text_of(path: Path) -> str:
    """The stripped text of a kernel file; empty when there is none or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def whole_number(text: str) -> int | None:
    """A decimal number, perhaps negative, or None."""
    try:
        return int(text)
    except ValueError:
        return None


def cpu_list(text: str) -> tuple[int, ...]:
    """The ids in a list such as "0-3,8"; empty for anything else (format: cpuset(7), "List format")."""
    ids: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            return ()
        ids.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(ids))


def logical_cpu_count(roots: Roots) -> int:
    """How many logical CPUs are online, 0 when the kernel does not say.

    It is the machine that counts, not what this process may use: affinity and control groups of the runner's own
    process say nothing about the containers that it asks another daemon to start.
    """
    online = cpu_list(text_of(roots.sys / "devices/system/cpu/online"))
    return len(online) or len(_CPU_LINE.findall(text_of(roots.proc / "stat")))


def cpu_times(roots: Roots) -> CpuTimes | None:
    """Ticks of all CPUs (format: proc_stat(5))."""
    label, *ticks = text_of(roots.proc / "stat").partition("\n")[0].split() or [""]
    if label != "cpu" or len(ticks) < _MODE_COUNT or not all(map(str.isdecimal, ticks)):
        return None
    modes = [int(tick) for tick in ticks[:_MODE_COUNT]]
    total = sum(modes)
    return CpuTimes(total - sum(modes[mode] for mode in _IDLE_MODES), total)


def busy_percent(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """How busy the CPUs were between two readings, 0 to 100; None when no time passed."""
    if before is None or after is None or after.total <= before.total:
        return None
    # The kernel lets its idle counters step back a little, so the quotient may leave the range.
    return round(min(100.0, max(0.0, 100.0 * (after.busy - before.busy) / (after.total - before.total))), 1)


def load_1m(roots: Roots) -> float | None:
    """The load average of the last minute."""
    first = text_of(roots.proc / "loadavg").split(" ")[0]
    try:
        return float(first)
    except ValueError:
        return None


def memory_total_and_used(roots: Roots) -> tuple[int, int]:
    """Bytes of memory, and bytes of it that a new program could not get (page cache is not "used")."""
    lines = _memory_lines(roots.proc / "meminfo")
    total = lines.get("MemTotal", 0)
    available = lines.get("MemAvailable", lines.get("MemFree", total))
    return total, max(0, total - available)


def numa_nodes(roots: Roots) -> tuple[NumaNode, ...]:
    """The NUMA nodes that have CPUs, by index: on a node that is only memory nothing can run."""
    tree = roots.sys / "devices/system/node"
    nodes = []
    for index in cpu_list(text_of(tree / "online")):
        cpu_ids = cpu_list(text_of(tree / f"node{index}/cpulist"))
        if cpu_ids:
            memory = _memory_lines(tree / f"node{index}/meminfo").get("MemTotal", 0)
            nodes.append(NumaNode(index=index, cpu_ids=cpu_ids, memory_bytes=memory))
    return tuple(nodes)


def pci_numa_node(roots: Roots, bus_id: str) -> int | None:
    """The NUMA node of a PCI device, given as "00000000:65:00.0" or shorter; None when it has none.

    Firmware without a mind on it gives -1.
    """
    domain, _, rest = bus_id.strip().lower().partition(":")
    if not re.fullmatch(r"[0-9a-f]+", domain) or not re.fullmatch(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", rest):
        return None
    device = f"{int(domain, 16):04x}:{rest}"
    index = whole_number(text_of(roots.sys / "bus/pci/devices" / device / "numa_node"))
    return index if index is not None and index >= 0 else None


def _memory_lines(path: Path) -> dict[str, int]:
    return {name: int(kib) * _KIB for name, kib in _MEMORY_LINE.findall(text_of(path))}
