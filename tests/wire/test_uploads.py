"""Bodies of raw bytes: read as they come, by nobody who is not let in, and never taken for whole when they are not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from kohakuriver.model import errors
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.fields import declare
from kohakuriver.model.route import Route
from kohakuriver.wire.call import Peer
from kohakuriver.wire.listen import listening
from kohakuriver.wire.serve import Edge, build_app
from kohakuriver.wire.sign import Signer, SteadyTime
from kohakuriver.wire.uploads import Body, on_upload
from tests.wire.rig import by_signature

LIMIT_BYTES = 1_000_000
KEY = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    key: str = declare("What.")
    note: str = declare("Why.", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    size_bytes: int
    note: str


PUT = Route("put", "PUT", "/api/{key}", Put, Stored, Role.NODE, "Put.", body_limit_bytes=LIMIT_BYTES, raw_body=True)


@dataclass
class State:
    """What came, piece by piece; `refuses` before anything is read, `gives_up_after` so many bytes."""

    pieces: list[bytes] = field(default_factory=list)
    whole: int = 0
    broken: int = 0
    refuses: bool = False
    gives_up_after: int = LIMIT_BYTES * 2


async def store(state: State, caller: Caller, asked: Put, body: Body) -> Stored:
    if state.refuses:
        raise errors.Conflict("it is taken")
    try:
        async for chunk in body.chunks:
            state.pieces.append(chunk)
            if sum(map(len, state.pieces)) > state.gives_up_after:
                raise errors.Conflict("the disk is full")
        state.whole += 1
    except BaseException:
        state.broken += 1
        raise
    return Stored(size_bytes=sum(map(len, state.pieces)), note=asked.note)


async def guard(state: State, caller: Caller, owns: Ownership, asked: Any) -> None:
    raise AssertionError("nothing is owned here")


@dataclass
class Rig:
    state: State
    port: int
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def peer(self, key: bytes = KEY) -> Peer:
        return Peer(self.http, self.url, Signer("alpha", key, SteadyTime()))


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    state = State()
    edge = Edge(state, by_signature(lambda name: KEY if name == "alpha" else None, SteadyTime()), guard)
    app = build_app((PUT,), [on_upload(PUT, store)], edge)
    async with listening(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        yield Rig(state, port, http)


def play(script: Callable[[Rig], Awaitable[None]]) -> None:
    async def work() -> None:
        async with running() as rig, asyncio.timeout(60):
            await script(rig)

    asyncio.run(work())


async def body(*pieces: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if then is not None:
        raise then


def test_bytes_arrive_as_they_were_sent_and_fields_travel_in_the_query() -> None:
    async def script(rig: Rig) -> None:
        for _ in range(2):  # the first signature is for no life yet: it is made again, and the body is sent once
            rig.state.pieces.clear()
            asked = Put(key="a/b ü", note="100 % & more")
            stored = await rig.peer().upload(PUT, asked, body(b"a" * 500_000, b"", b"b" * 500_000))
            assert stored == Stored(size_bytes=1_000_000, note="100 % & more")
            assert b"".join(rig.state.pieces) == b"a" * 500_000 + b"b" * 500_000
        assert (await rig.peer().upload(PUT, Put(key="x"), body())).size_bytes == 1_000_000

    play(script)


def test_what_is_too_large_is_refused_before_or_while_it_comes() -> None:
    async def script(rig: Rig) -> None:
        with pytest.raises(errors.TooLarge):
            await rig.peer().upload(PUT, Put(key="x"), body(*[b"x" * 300_000] * 4))
        assert rig.state.whole == 0 and rig.state.broken == 1

    play(script)


def test_who_is_not_let_in_sends_nothing() -> None:
    async def script(rig: Rig) -> None:
        asked = Put(key="x")
        with pytest.raises(errors.NotLoggedIn):
            await rig.peer(bytes(32)).upload(PUT, asked, body(then=AssertionError("it was wanted")))
        rig.state.refuses = True
        with pytest.raises(errors.Conflict, match="taken"):
            await rig.peer().upload(PUT, asked, body(then=AssertionError("it was wanted")))
        async with rig.http.put(rig.url + "/api/x", data=b"x") as answer:
            assert answer.status == 401 and not rig.state.pieces

    play(script)


def test_a_refusal_in_the_middle_reaches_who_still_sends() -> None:
    async def script(rig: Rig) -> None:
        rig.state.gives_up_after = 100_000

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 50_000
                await asyncio.sleep(0)

        with pytest.raises(errors.Conflict, match="the disk is full"):
            await rig.peer().upload(PUT, Put(key="x"), endless())

    play(script)


def test_a_body_that_breaks_off_is_never_whole_and_its_own_error_comes_out() -> None:
    async def script(rig: Rig) -> None:
        for error in (errors.Conflict("my own"), ConnectionResetError("gone")):
            with pytest.raises(type(error)):
                await rig.peer().upload(PUT, Put(key="x"), body(b"x" * 1000, then=error))
        while rig.state.broken < 2:
            await asyncio.sleep(0.01)
        assert rig.state.whole == 0

    play(script)


def test_a_body_must_say_that_it_is_raw() -> None:
    async def script(rig: Rig) -> None:
        signer = Signer("alpha", KEY, SteadyTime())
        with pytest.raises(errors.WrongContentType):
            await _Mislabelled(rig.http, rig.url, signer).upload(PUT, Put(key="x"), body(b"{}"))

    play(script)


class _Mislabelled(Peer):
    """Says that what it sends is a form, as the page of another site could."""

    async def _send(self, prepared: Any, headers: dict[str, str], timeout: aiohttp.ClientTimeout, **how: Any) -> Any:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return await super()._send(prepared, headers | form, timeout, **how)
