"""Bytes of Docker's output streams made into bytes of the program: sans-IO.

Docker sends output in frames of `>BxxxI` (1 stdout, 2 stderr; length) and payload. An attached stream carries what the
program wrote as it is. A stream of the log carries records: a line each, or, of a line of 16 KiB and more, its pieces.
"""

import struct

STDOUT, STDERR = 1, 2
Piece = tuple[int, bytes]

_HEADER = struct.Struct(">BxxxI")
PIECE_BYTES = 16 * 1024


class Frames:
    """Takes the stream in any cuts, gives (1 or 2, payload)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Piece]:
        """The frames that are complete now."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        found: list[Piece] = []
        while size - at >= _HEADER.size:
            stream, length = _HEADER.unpack_from(data, at)
            end = at + _HEADER.size + length
            if end > size:
                break
            found.append((stream, data[at + _HEADER.size : end]))
            at = end
        self._rest = data[at:]
        return found


class Records:
    """Takes the records of one stream of the log, each behind its time and a space; gives back what the program wrote.

    All pieces of a long line bear the time of the first, and only a last piece is shorter than 16 KiB. Daemons before
    23 lose the line's end after a last piece (`loses_line_ends`), so it is put back: when another record follows, or
    at the end. Such a daemon's log does not tell whether a line of 16 KiB and more, if it is the very last, had an end.
    """

    def __init__(self, loses_line_ends: bool) -> None:
        self._loses_line_ends = loses_line_ends
        self._long_line = b""
        self._owes_line_end = False

    def feed(self, record: bytes) -> bytes:
        """What the program wrote, as far as this record tells."""
        stamp, _, line = record.partition(b" ")
        owed, self._owes_line_end = b"\n" * self._owes_line_end, False
        goes_on = bool(self._long_line) and stamp == self._long_line
        self._long_line = b""
        if not line.endswith(b"\n"):
            if len(line) == PIECE_BYTES:
                self._long_line = stamp
            elif goes_on:
                self._owes_line_end = self._loses_line_ends
        return owed + line

    def end(self) -> bytes:
        """What is still owed when there are no more records."""
        owed, self._owes_line_end = b"\n" * self._owes_line_end, False
        return owed
