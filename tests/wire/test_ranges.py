"""Ranges of bytes: stock clients get the part that they ask for, and everything where that cannot be."""

import asyncio
import json
from typing import Any

import pytest

from kohakuriver.wire.ranges import Range, wanted
from tests.wire.rig import Server, serving


async def ask(server: Server, path: str, header: str) -> tuple[int, bytes, Any]:
    """Status, body and headers."""
    async with server.http.get(f"{server.url}{path}", headers={"Range": header}) as answer:
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize(
    ("header", "status", "body", "told"),
    [
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=4-4", 206, b"4", "bytes 4-4/10"),
        ("bytes=2-7", 206, b"234567", "bytes 2-7/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 200, b"0123456789", ""),
        ("bytes=5-4", 200, b"0123456789", ""),
        ("bytes=0-1,4-5", 200, b"0123456789", ""),
        ("pages=1-2", 200, b"0123456789", ""),
    ],
)
def test_a_range_is_answered_with_just_that_part(header: str, status: int, body: bytes, told: str) -> None:
    async def work() -> None:
        async with serving() as server:
            said, content, headers = await ask(server, "/api/ranged", header)
            assert (said, content, headers.get("Content-Range", "")) == (status, body, told)
            assert headers["Content-Length"] == str(len(body))

    asyncio.run(work())


def test_behind_the_end_there_is_nothing() -> None:
    async def work() -> None:
        async with serving() as server:
            said, error, headers = await ask(server, "/api/ranged", "bytes=10-")
            assert (said, json.loads(error)["error"]["code"]) == (416, "out_of_range")
            assert headers["Content-Range"] == "bytes */10"

    asyncio.run(work())


def test_an_offset_in_the_query_counts_before_a_range() -> None:
    async def work() -> None:
        async with serving() as server:
            said, content, _ = await ask(server, "/api/ranged?offset=7", "bytes=1-2")
            assert (said, content) == (200, b"789")

    asyncio.run(work())


def test_a_condition_that_we_cannot_judge_gets_everything() -> None:
    assert wanted({"Range": "bytes=3-"}) == Range(3, None)
    assert wanted({"Range": "bytes=3-", "If-Range": '"x"'}) is None
