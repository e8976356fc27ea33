"""Complete log files out of Docker's own log after whoever copied the output was away."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_frames import STDOUT, Frames, Records
from kohakuriver.system.docker_output import LogFile, Output

_ANCHOR_NAME = ".resume"
_WINDOW_BYTES = 16 * 1024
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where Docker's log and the files meet: records after a time belong at these offsets.

    A daemon that is killed takes along what it had sent to us but not yet written to its log, so that its log lacks
    it for ever: what the next daemon logs is then joined to the files as they stood. `lost_at` is such a death that
    was seen but not dealt with yet. Times are unix seconds.
    """

    after: float = 0.0
    stdout: int = 0
    stderr: int = 0
    lost_at: float | None = None

    def offset(self, stream: int) -> int:
        """Where the first record of the stream belongs."""
        return self.stdout if stream == STDOUT else self.stderr


def load_anchor(directory: Path) -> Anchor:
    """The anchor of these log files; the beginning of everything when none was needed so far."""
    try:
        return Anchor(**json.loads((directory / _ANCHOR_NAME).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return Anchor()


def save_anchor(directory: Path, anchor: Anchor) -> None:
    """Keep the anchor beside the log files until they are complete; raises OSError."""
    draft = directory / f"{_ANCHOR_NAME}.new"
    draft.write_text(json.dumps(asdict(anchor)))
    os.replace(draft, directory / _ANCHOR_NAME)


def drop_anchor(directory: Path) -> None:
    """The log files are complete."""
    (directory / _ANCHOR_NAME).unlink(missing_ok=True)


def docker_time(unix_seconds: float) -> str:
    """A time in the form of Docker's `since` and `until`."""
    return f"{int(unix_seconds)}.{int(unix_seconds % 1 * _NANO):09d}"


class Join:
    """Finds where the records of one stream go on after what a file holds already, and gives back only what is new.

    Records that match the file are skipped. If the first does not match, the log's beginning has been rotated away,
    and the place is looked for; if a later one does not, the log has a hole that the file fills.
    """

    def __init__(self, file: LogFile, offset: int) -> None:
        self._file, self._at, self._begin = file, offset, offset
        self._end = max(file.held_bytes, offset)
        self._window: bytes | None = None
        self.gave_news = False

    @property
    def is_at_end(self) -> bool:
        """Whether the file holds exactly what was fed so far, neither more nor less."""
        return self._at == self._end and not self.gave_news and self._window is None

    def feed(self, records: list[bytes]) -> bytes:
        """What the file lacks of these records."""
        together = b"".join(records)
        if self._window is None and together.startswith(held := self._held(len(together))):
            return self._skip(together, len(held))
        return b"".join(map(self._feed_one, records))

    def close(self) -> bytes:
        """What is new in what was still being compared when the records ended."""
        if self._window is None:
            return b""
        window, self._window = self._window, None
        held = self._file.read(self._begin, self._end - self._begin)
        self._at = self._end
        return self._news(window[len(held) - overlap(held, window) :])

    def _feed_one(self, record: bytes) -> bytes:
        if self._window is not None:
            return self._gather(record)
        held = self._held(len(record))
        if record.startswith(held):
            return self._skip(record, len(held))
        if self._at == self._begin:
            return self._gather(record)
        self._at = self._end
        return self._news(record)

    def _held(self, size_bytes: int) -> bytes:
        return self._file.read(self._at, min(size_bytes, self._end - self._at))

    def _skip(self, data: bytes, matched_bytes: int) -> bytes:
        self._at += matched_bytes
        return self._news(data[matched_bytes:])

    def _gather(self, record: bytes) -> bytes:
        self._window = (self._window or b"") + record
        enough = min(_WINDOW_BYTES, self._end - self._begin)
        return self.close() if len(self._window) >= enough else b""

    def _news(self, data: bytes) -> bytes:
        self.gave_news = self.gave_news or bool(data)
        return data


def overlap(held: bytes, window: bytes) -> int:
    """The first place in `held` from which on `window` says the same, as far as both go; its length if there is none."""
    place = held.find(window)
    if place >= 0:
        return place
    tail = max(0, len(held) - len(window) + 1)
    return next((at for at in range(tail, len(held)) if window.startswith(held[at:])), len(held))


class Recovery:
    """Takes a stream of Docker's log, times included, in any cuts, and completes the files; for worker threads.

    Methods raise OSError when the disk does not take the output, which is kept then.
    """

    def __init__(self, output: Output, anchor: Anchor, loses_line_ends: bool) -> None:
        output.flush()
        self._output = output
        self._frames = Frames()
        wanted = {stream: file for stream, file in output.files.items() if not file.is_full}
        self._records = {stream: Records(loses_line_ends) for stream in wanted}
        self._joins = {stream: Join(file, anchor.offset(stream)) for stream, file in wanted.items()}

    def feed(self, data: bytes) -> None:
        """Append what the files lack; raises EngineFailed when Docker says that it cannot read its log."""
        gathered: dict[int, list[bytes]] = {stream: [] for stream in self._joins}
        for stream, record in self._frames.feed(data):
            if stream in gathered:
                gathered[stream].append(self._records[stream].feed(record))
            elif stream not in self._output.files:
                raise EngineFailed(f"Docker cannot read its log: {record.decode(errors='replace').strip()}")
        self._output.append([(stream, self._joins[stream].feed(records)) for stream, records in gathered.items()])

    def pause(self) -> None:
        """There are no more records for now."""
        self._output.append([(stream, join.close()) for stream, join in self._joins.items()])

    def end(self, last_words: Mapping[int, bytes]) -> None:
        """There are no more records, and the program has ended; its last words are in no log."""
        for stream, join in self._joins.items():
            owed = self._records[stream].end()
            if join.is_at_end:
                owed = b""  # who copied all of the last line, and no end of it, copied it as it was
            news = join.feed([owed]) + join.close() + join.feed([last_words.get(stream, b"")])
            self._output.append([(stream, news)])
