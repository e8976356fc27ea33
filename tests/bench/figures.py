"""What a figure is, how it is taken, and how it is shown."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `floor` is what the same machine did at best in the same run, `ratio` value over floor."""

    name: str
    value: float
    unit: str
    wanted: str
    holds: bool
    floor: float | None = None
    ratio: float | None = None


def at_least(name: str, value: float, unit: str, bounds: "Bounds") -> Figure:
    """A figure that should be large: in itself, and against its floor."""
    ratio = value / bounds.floor if bounds.floor else None
    holds = (bounds.absolute is None or value >= bounds.absolute) and (
        bounds.relative is None or (ratio is not None and ratio >= bounds.relative)
    )
    return Figure(name, value, unit, bounds.words("≥"), holds, bounds.floor, ratio)


def at_most(name: str, value: float, unit: str, bounds: "Bounds") -> Figure:
    """A figure that should be small: in itself, and against its floor."""
    ratio = value / bounds.floor if bounds.floor else None
    holds = (bounds.absolute is None or value <= bounds.absolute) and (
        bounds.relative is None or (ratio is not None and ratio <= bounds.relative)
    )
    return Figure(name, value, unit, bounds.words("≤"), holds, bounds.floor, ratio)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is wanted of a figure: an absolute value, a ratio to the floor, or both."""

    absolute: float | None = None
    relative: float | None = None
    floor: float | None = None

    def words(self, sign: str) -> str:
        parts = [f"{sign} {self.absolute:g}"] if self.absolute is not None else []
        parts += [f"{sign} {self.relative:g} × floor"] if self.relative is not None else []
        return " and ".join(parts)


def interleaved(ours: Callable[[], float], floor: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of both, taken in turn, so that a machine that drifts does not favour one."""
    pairs = [(ours(), floor()) for _ in range(rounds)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(figure: Figure) -> None:
    """One line for people."""
    floor = f"floor {figure.floor:10.2f}  ratio {figure.ratio:6.2f}" if figure.floor and figure.ratio else " " * 31
    verdict = "holds" if figure.holds else "MISSED"
    print(
        f"{figure.name:<58} {figure.value:12.2f} {figure.unit:<9} {floor}  wanted {figure.wanted:<24} {verdict}",
        flush=True,
    )


def write(figures: Sequence[Figure], out: Path) -> None:
    """All figures as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(f) for f in figures], indent=1, ensure_ascii=False) + "\n")
    missed = [f.name for f in figures if not f.holds]
    print(f"{len(figures)} figures, {len(missed)} missed{': ' + ', '.join(missed) if missed else ''}", file=sys.stderr)


BEGIN, END = "<!-- bench -->", "<!-- end bench -->"


def write_readme(figures: Sequence[Figure], readme: Path) -> None:
    """Put the figures as a table between the markers of a page."""
    rows = [f"| {f.name} | {_number(f.value)} {f.unit} | {_floor(f)} | {f.wanted} | {_verdict(f)} |" for f in figures]
    table = "\n".join(["| what | measured | floor | wanted | |", "|---|---|---|---|---|", *rows])
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


def _verdict(figure: Figure) -> str:
    return "holds" if figure.holds else "**missed**"


def _floor(figure: Figure) -> str:
    return f"{_number(figure.floor)} (× {figure.ratio:.2f})" if figure.floor and figure.ratio else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
