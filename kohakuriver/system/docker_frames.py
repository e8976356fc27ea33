"""Bytes of Docker's output streams made into bytes of the program: sans-IO.

Docker sends output in frames of `>BxxxI` (1 stdout, 2 stderr; length) and payload.
"""

import struct

Piece = tuple[int, bytes]

_HEADER = struct.Struct(">BxxxI")


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
