"""Reads a stretch of a file of output: from an offset, or its last lines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024


def start_of(file: BinaryIO, offset: int, lines: int | None) -> int:
    """Where to begin: `offset`, or the first byte of the last `lines` lines."""
    size = os.fstat(file.fileno()).st_size
    return min(offset, size) if lines is None else _start_of_last_lines(file, size, lines)


def read_from(path: Path, offset: int, lines: int | None) -> tuple[int, Iterator[bytes]]:
    """The first byte's offset, and the bytes from there to the end of the file; raises FileNotFoundError."""
    file = path.open("rb")
    start = start_of(file, offset, lines)
    file.seek(start)
    return start, _chunks(file)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _start_of_last_lines(file: BinaryIO, size: int, lines: int) -> int:
    """Counts line ends backwards, block by block; an unfinished last line is a line."""
    if lines == 0:
        return size
    end, wanted = size, lines
    if size:
        file.seek(size - 1)
        wanted += file.read(1) == b"\n"
    while end > 0:
        begin = max(0, end - CHUNK_BYTES)
        file.seek(begin)
        block = file.read(end - begin)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
            if wanted == 0:
                return begin + at + 1
        end = begin
    return 0
