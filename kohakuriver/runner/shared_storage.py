"""Whether the storage that host and nodes share is really there: asked now and then, never waited for long."""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.system.clock import Clock
from kohakuriver.system.latest import Latest

log = logging.getLogger(__name__)
MARKER_NAME = ".kohakuriver-cluster"
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether shared storage can be used, and if not, why (empty when none is configured)."""

    usable: bool
    why: str = ""


class SharedStorage:
    """One node's view of SHARED_DIR; usable when it can be written and holds the marker of our cluster."""

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        self.directory, self.clock = directory, clock
        self.verdict = Verdict(False)
        self._cluster_id = ""
        self._latest = Latest(clock, self._look, self.verdict, period_seconds=0.0)

    @property
    def data(self) -> str:
        """The directory shown to tasks as /shared; empty when there is none."""
        return str(self.directory / "shared_data") if self.directory and self.verdict.usable else ""

    @property
    def logs(self) -> Path | None:
        """Where outputs go so that every machine can read them; None when that is impossible just now."""
        return self.directory / "logs" if self.directory and self.verdict.usable else None

    async def look(self, cluster_id: str) -> None:
        """Find out how it is now; a disk that does not answer keeps the verdict from before."""
        if self.directory is None or not cluster_id:  # the host has not said yet which marker is ours
            return
        self._cluster_id = cluster_id
        found = await self._latest.get(PATIENCE_SECONDS)
        if found != self.verdict:
            log.info("shared storage usable=%s why=%s path=%s", found.usable, found.why or "-", self.directory)
        self.verdict = found

    def _look(self) -> Verdict:
        assert self.directory is not None
        try:
            belongs_to = (self.directory / MARKER_NAME).read_text().strip()
            if belongs_to != self._cluster_id:
                return Verdict(False, f"{self.directory} belongs to the cluster {belongs_to[:40]!r}, not to ours")
            for name in ("logs", "shared_data"):
                os.makedirs(self.directory / name, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.directory / name):
                    pass
        except FileNotFoundError:
            return Verdict(False, f"{self.directory} is not mounted, or its host has not marked it yet ({MARKER_NAME})")
        except (OSError, UnicodeDecodeError) as broken:
            return Verdict(False, f"{self.directory} cannot be used: {broken}")
        return Verdict(True)
