"""How hot the processor is, from the kernel's hardware monitors and thermal zones."""

from collections.abc import Iterator
from pathlib import Path

from kohakuriver.system.proc import Roots, text_of, whole_number

_CPU_CHIPS = frozenset({"coretemp", "k10temp", "k8temp", "zenpower", "via_cputemp", "cpu_thermal", "scpi_sensors"})
_CPU_ZONE_WORDS = ("x86_pkg_temp", "cpu", "soc")
_MILLI = 1000
_SANE_CELSIUS = (-30.0, 130.0)  # sensors that are not wired read 0 K, -128 or 255


def processor_celsius(roots: Roots) -> float | None:
    """The hottest reading of the best kind that there is; None when the machine tells none.

    Best are the processor's own monitors (/sys/class/hwmon), then thermal zones named after a processor, then any
    thermal zone. (Formats: the kernel's hwmon/sysfs-interface and driver-api/thermal/sysfs-api documents.)
    """
    zones = list(_thermal_zones(roots))
    kinds = (
        list(_processor_monitors(roots)),
        [celsius for kind, celsius in zones if any(word in kind for word in _CPU_ZONE_WORDS)],
        [celsius for _, celsius in zones],
    )
    return next((max(readings) for readings in kinds if readings), None)


def _processor_monitors(roots: Roots) -> Iterator[float]:
    for chip in _entries(roots.sys / "class/hwmon", "hwmon*"):
        if text_of(chip / "name") in _CPU_CHIPS:
            for file in _entries(chip, "temp*_input"):
                yield from _celsius(file)


def _thermal_zones(roots: Roots) -> Iterator[tuple[str, float]]:
    for zone in _entries(roots.sys / "class/thermal", "thermal_zone*"):
        for celsius in _celsius(zone / "temp"):
            yield text_of(zone / "type").lower(), celsius


def _celsius(file: Path) -> Iterator[float]:
    milli = whole_number(text_of(file))
    if milli is not None and _SANE_CELSIUS[0] < milli / _MILLI < _SANE_CELSIUS[1]:
        yield milli / _MILLI


def _entries(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
