"""A small table of its own, served for real on loopback, to try the wire with."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kohakuriver.model import fields as f
from kohakuriver.model.access import NOBODY, Caller, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import NotFound
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.files import SIZE_HEADER
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.route import ByteStream, PlainText, Route, table_of
from kohakuriver.wire.listen import listening
from kohakuriver.wire.serve import (
    Answer,
    Edge,
    Identified,
    Incoming,
    Streamed,
    build_app,
    on,
    on_stream,
    on_text,
)
from kohakuriver.wire.sign import REQUEST_HEADER, FindKey, Signed, Verifier

LIMIT_BYTES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is sent."""

    key: str = declare("A name in the path.", bounds=Bounds(length=64, pattern=f.HOSTNAME))
    text: str = declare("What it says.", default="", bounds=Bounds(length=100))
    number: int = declare("How many.", default=0, bounds=Bounds(least=0, most=9))
    yes: bool = declare("Whether.", default=False)
    words: list[str] = declare("Which.", default=[], bounds=Bounds(count=3))
    status: Status | None = declare("In which status.", default=None)
    task_id: Snowflake | None = declare("Which task.", default=None)
    deep: dict[str, str] = declare("Anything.", default={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked."""

    key: str = declare("A name in the path.", bounds=Bounds(length=64, pattern=f.HOSTNAME))
    text: str | None = declare("What it says.", default=None, bounds=Bounds(length=100))
    number: int = declare("How many.", default=0, bounds=Bounds(least=0, most=9))
    ratio: float = declare("How much.", default=0.5, bounds=Bounds(least=0, most=1))
    yes: bool = declare("Whether.", default=False)
    words: list[str] = declare("Which.", default=[], bounds=Bounds(count=3))
    status: Status | None = declare("In which status.", default=None)
    task_id: Snowflake | None = declare("Which task.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is asked of bytes."""

    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))


@dataclass(frozen=True, slots=True)
class Nothing:
    """No parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """What came in, and from whom."""

    caller: str
    role: str
    heard: list[Note] = field(default_factory=list)


N = Role.NODE
WRITE = Route("write", "POST", "/api/notes/{key}", Note, Echo, N, "Write.", success=202, body_limit_bytes=LIMIT_BYTES)
REPLACE = Route("replace", "PUT", "/api/notes/{key}", Note, Echo, N, "Replace.", body_limit_bytes=LIMIT_BYTES)
READ = Route("read", "GET", "/api/notes/{key}", Query, Query, N, "Read.")
FORGET = Route("forget", "DELETE", "/api/notes/{key}", Query, Nothing, N, "Forget.")
MINE = Route("mine", "GET", "/api/notes/mine", Nothing, Echo, Role.ANONY, "A fixed path beside a parameter.")
BREAK = Route("break", "GET", "/api/break", Nothing, Echo, Role.ANONY, "Fails.")
OWNED = Route("owned", "GET", "/api/owned/{key}", Query, Query, Role.ANONY, "Guarded.", Ownership.NODE)
BYTES = Route("bytes", "GET", "/api/bytes/{key}", Query, ByteStream, N, "Streams.")
RANGED = Route("ranged", "GET", "/api/ranged", Part, ByteStream, Role.ANONY, "Ten digits.", ranged=True)
TEXT = Route("text", "GET", "/text", Nothing, PlainText, Role.ANONY, "Text.")
NEEDS = {
    role: Route(f"needs.{role.label}", "GET", f"/api/needs/{role.label}", Nothing, Echo, role, "Sweep.")
    for role in Role
}
TABLE = (*table_of(globals()), *NEEDS.values())


@dataclass
class State:
    """What the answers were asked; `chunks` is what a stream gives."""

    asked: list[Any] = field(default_factory=list)
    chunks: Callable[[Query], AsyncIterator[bytes]] | None = None
    hold: Callable[[], Awaitable[None]] | None = None


async def write(state: State, caller: Caller, asked: Note) -> Echo:
    state.asked.append(asked)
    if state.hold:
        await state.hold()
    return Echo(caller=caller.name, role=caller.role.label, heard=[asked])


async def read(state: State, caller: Caller, asked: Query) -> Query:
    state.asked.append(asked)
    return asked


async def forget(state: State, caller: Caller, asked: Query) -> Nothing:
    state.asked.append(asked)
    raise NotFound(f"there is no {asked.key}")


async def echo(state: State, caller: Caller, asked: Nothing) -> Echo:
    return Echo(caller=caller.name, role=caller.role.label)


async def fail(state: State, caller: Caller, asked: Nothing) -> Echo:
    raise KeyError("a bug with a secret in it")


async def stream(state: State, caller: Caller, asked: Query) -> Streamed:
    assert state.chunks is not None
    return Streamed(state.chunks(asked), {"X-Kohakuriver-Offset": "7"})


async def ranged(state: State, caller: Caller, asked: Part) -> Streamed:
    """Ten digits, three of them at once."""

    async def digits() -> AsyncIterator[bytes]:
        for at in range(asked.offset, 10, 3):
            yield b"0123456789"[at : at + 3]

    return Streamed(digits(), {"Content-Length": str(10 - min(10, asked.offset)), SIZE_HEADER: "10"})


async def text(state: State, caller: Caller, asked: Nothing) -> str:
    return "ok é\n"


ANSWERS: list[Answer[State]] = [
    on(WRITE, write),
    on(REPLACE, write),
    on(READ, read),
    on(FORGET, forget),
    on(MINE, echo),
    on(BREAK, fail),
    on(OWNED, read),
    on_stream(BYTES, stream),
    on_stream(RANGED, ranged),
    on_text(TEXT, text),
    *(on(route, echo) for route in NEEDS.values()),
]


async def guard(state: State, caller: Caller, owns: Ownership, asked: Any) -> None:
    if asked.key != "mine":
        raise NotFound(f"there is no {asked.key}")


def by_header(incoming: Incoming) -> Identified:
    """The caller is whatever role a header claims: nobody, unless it says otherwise."""
    role = incoming.headers.get("X-Role")
    return Identified(Caller("somebody", Role[role.upper()]) if role else NOBODY)


def by_signature(find_key: FindKey, now: Callable[[], float]) -> Callable[[Incoming], Identified]:
    """The caller is the node that signed; without a signature it is nobody."""
    verifier = Verifier(find_key, now)

    def identify(incoming: Incoming) -> Identified:
        header = incoming.headers.get(REQUEST_HEADER)
        if header is None:
            return Identified(NOBODY)
        signed: Signed = verifier.verify(header, incoming.signing)
        return Identified(Caller(signed.name, Role.NODE), signed)

    return identify


@dataclass
class Server:
    """The table, being served."""

    port: int
    state: State
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        """Status, JSON and headers of a request, made by a node unless `role` says otherwise."""
        role = more.pop("role", "node")
        headers = ({"X-Role": role} if role else {}) | more.pop("headers", {})
        async with self.http.request(method, self.url + path, headers=headers, **more) as answer:
            body = await answer.read()
            assert answer.content_type == "application/json", body
            return answer.status, json.loads(body), answer.headers

    async def raw(self, *parts: bytes, pause_seconds: float = 0.0, until_closed: bool = False) -> bytes:
        """The first answer to these bytes, or all until the server closes, which it must do within ten seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(10):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause_seconds)
                return await reader.read() if until_closed else await _first_answer(reader)
        finally:
            writer.close()


async def _first_answer(reader: asyncio.StreamReader) -> bytes:
    head = b""
    while (line := await reader.readline()).strip():
        head += line
    length = next((h.partition(b":")[2] for h in head.splitlines() if h.lower().startswith(b"content-length:")), b"0")
    return head + line + await reader.readexactly(int(length))


@asynccontextmanager
async def serving(identify: Callable[[Incoming], Identified] = by_header) -> AsyncIterator[Server]:
    """The table, served on a free port."""
    state = State()
    app = build_app(TABLE, ANSWERS, Edge(state, identify, guard))
    async with listening(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        yield Server(port, state, http)
