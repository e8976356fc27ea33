"""Ranges of bytes as stock clients ask for them (`curl -C -`, `wget -c`, browsers): RFC 9110, section 14. Sans-IO."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kohakuriver.model.errors import OutOfRange
from kohakuriver.model.files import SIZE_HEADER

_WANTED = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class Range(NamedTuple):
    """The bytes from `first` to `last`, which is among them; None: to the end."""

    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """What an answer becomes; `length` is how many of its bytes go out, None: all."""

    status: int
    headers: Mapping[str, str]
    length: int | None = None

    async def of(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The bytes that go out."""
        left = self.length
        async for chunk in chunks:
            yield chunk[:left]
            if left is not None and (left := left - len(chunk)) <= 0:
                return


def wanted(headers: Mapping[str, str]) -> Range | None:
    """What is asked for; None for everything, and for what may be answered with everything.

    That is more than one range, one that counts from the end, one that cannot be, or one with a condition.
    """
    found = _WANTED.fullmatch(headers.get("Range", "").strip())
    if found is None or "If-Range" in headers:
        return None
    first, last = int(found[1]), int(found[2]) if found[2] else None
    return Range(first, last) if last is None or first <= last else None


def part_of(asked: Range, headers: Mapping[str, str]) -> Part:
    """What of an answer that begins at `first`; raises OutOfRange when there is nothing behind it."""
    size, there = int(headers[SIZE_HEADER]), int(headers["Content-Length"])
    if asked.first >= size:
        raise OutOfRange(f"Range: there are only {size} bytes", {"size_bytes": size})
    length = there if asked.last is None else min(there, asked.last - asked.first + 1)
    told = {"Content-Length": str(length), "Content-Range": f"bytes {asked.first}-{asked.first + length - 1}/{size}"}
    return Part(206, {**headers, **told}, length)
