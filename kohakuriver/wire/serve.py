"""Turn a route table and its answers into a server.

One request, in order: read, identify, allow, decode, guard, answer, encode. Nothing else in the product reads an
aiohttp request (but for what `browser` looks at) or maps an error to a status.
"""

import asyncio
import functools
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast, get_origin

from aiohttp import hdrs, web

from kohakuriver.model import codec, errors
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.route import ByteStream, Entry, PlainText, Route
from kohakuriver.wire import browser, ranges, sign
from kohakuriver.wire.browser import Ambient, KnowsName, WithSession
from kohakuriver.wire.ranges import Range
from kohakuriver.wire.sockets import GOING_AWAY, Socket

log = logging.getLogger(__name__)
S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")
BODY_TIMEOUT_SECONDS = 30.0
METHODS = web.AppKey("METHODS", dict[str, list[str]])  # by path, as the table spells it
SOCKETS = web.AppKey("SOCKETS", set[Socket])  # those that are open


async def _nothing_to_release() -> None:
    """What was streamed ends by itself."""


@dataclass(frozen=True, slots=True)
class Encoded(Generic[R]):
    """An answer of type R that is JSON text already."""

    text: str


@dataclass(frozen=True, slots=True)
class Streamed:
    """Raw bytes as they come; `headers` tell what they are, `release` lets go of them however it ends."""

    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    release: Callable[[], Awaitable[object]] = _nothing_to_release


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as the edge read it: enough to say who sent it.

    `session` is the browser's, if it sent one, `ticket` what it opens a socket with.
    """

    headers: Mapping[str, str]
    remote: str
    signing: sign.Request
    session: str = ""
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Identified:
    """Who sent a request; `signed` stands when a program did, and its answer is signed too.

    `ambient` stands when a browser may have said who it is without being asked; `hint` tells nobody how to be somebody.
    """

    caller: Caller
    signed: sign.Signed | None = None
    ambient: Ambient | None = None
    hint: str = "log in first"


Identify = Callable[[Incoming], Identified]
Handler = Callable[[S, Caller, Q], Awaitable[R]]
Guard = Callable[[S, Caller, Ownership, Any], Awaitable[None]]
Watch = Callable[[Caller, Callable[[], None]], AbstractContextManager[None]]
WatchUse = Callable[[Caller, Ownership, Any, Callable[[], None]], AbstractContextManager[None]]
Refused = Callable[[Entry, Caller, errors.RiverError], None]
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Answer(Generic[S]):
    """A route and the function that answers it; `on`, `on_stream` and `on_text` make one, type-checked."""

    route: Route[Any, Any]
    handler: Handler[S, Any, Any]

    def bind(self, edge: "Edge[S]") -> Endpoint:
        """The whole way of a request behind this edge."""
        return _endpoint(self, edge)


class Bindable(Protocol[S]):
    """What answers one entry of a table."""

    @property
    def route(self) -> Entry: ...

    def bind(self, edge: "Edge[S]") -> Endpoint: ...


def on(route: Route[Q, R], handler: Handler[S, Q, R | Encoded[R] | WithSession[R]]) -> Answer[S]:
    """Answer a route with JSON."""
    return Answer(route, handler)


def on_stream(route: Route[Q, ByteStream], handler: Handler[S, Q, Streamed]) -> Answer[S]:
    """Answer a route with raw bytes."""
    return Answer(route, handler)


def on_text(route: Route[Q, PlainText], handler: Handler[S, Q, str]) -> Answer[S]:
    """Answer a route with text."""
    return Answer(route, handler)


@dataclass(frozen=True)
class Edge(Generic[S]):
    """What stands between the network and the answers: the state they get, and who is let through.

    `knows_name` says which names of the Host header are ours, `watch` calls back when a caller may no longer do what
    he is doing, `watch_use` when the thing that a socket reaches is his no more, `refused` hears of what somebody known was not allowed.
    """

    state: S
    identify: Identify
    guard: Guard[S]
    knows_name: KnowsName = lambda name: True
    watch: Watch = lambda caller, cut: nullcontext()
    watch_use: WatchUse = lambda caller, owns, asked, cut: nullcontext()
    refused: Refused = lambda route, caller, error: None


def build_app(entries: Sequence[Entry], answers: Sequence[Bindable[S]], edge: Edge[S]) -> web.Application:
    """An application that answers exactly this table; raises RuntimeError when table and answers differ."""
    wanted, given = sorted(e.name for e in entries), sorted(a.route.name for a in answers)
    if wanted != given:
        differ = (Counter(wanted) - Counter(given)) + (Counter(given) - Counter(wanted))
        raise RuntimeError(f"table and answers differ: {sorted(differ)}")
    app = web.Application(middlewares=[_errors_to_json])
    app[SOCKETS] = set()
    app.on_shutdown.append(_close_sockets)
    app[METHODS] = _methods(entries)
    fixed = [answer for answer in answers if not _has_parameters(answer.route)]
    for answer in fixed:
        _add(app, answer, edge)
    for path in {answer.route.path for answer in fixed}:  # a fixed path is no value of a parameter, whatever the method
        app.router.add_route("*", path, _refuse_method)
    for answer in answers:
        if _has_parameters(answer.route):
            _add(app, answer, edge)
    return app


def _methods(entries: Sequence[Entry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in sorted(entries, key=lambda entry: entry.method):
        found.setdefault(entry.path, []).append(entry.method)
    return found


def _has_parameters(entry: Entry) -> bool:
    return "{" in entry.path


def _add(app: web.Application, answer: Bindable[S], edge: Edge[S]) -> None:
    entry = answer.route
    app.router.add_route(entry.method, entry.path, answer.bind(edge), expect_handler=_wait_to_invite)


async def _refuse_method(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, ())


async def _close_sockets(app: web.Application) -> None:
    sockets = app[SOCKETS]
    await asyncio.gather(*(socket.close(GOING_AWAY, "the program stops") for socket in tuple(sockets)))


async def _wait_to_invite(request: web.Request) -> None:
    """Who asks whether to send a body (`Expect`) is told so by who reads it."""


async def invite_body(request: web.Request) -> None:
    """Tell a client that waits for it to send the body (RFC 9110, 10.1.1)."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer, nothing is written yet


def _endpoint(answer: Answer[S], edge: Edge[S]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    route, encode = answer.route, codec.encoder(answer.route.gives)
    parse = parsers_of(route)

    async def serve(request: web.Request, body: bytes, who: Identified) -> web.StreamResponse:
        allow(route, who)
        members = _members(request, route, body, parse)
        part = ranges.wanted(request.headers) if route.ranged and "offset" not in members else None
        if part is not None:
            members["offset"] = part.first
        asked = codec.decode(route.takes, members)
        if route.owns is not Ownership.NOTHING:
            await edge.guard(edge.state, who.caller, route.owns, asked)
        if route.gives is ByteStream:
            return await until_cut(edge, route.owns, who.caller, asked, stream(request, asked, who, part))
        made = await answer.handler(edge.state, who.caller, asked)
        if route.gives is PlainText:
            return web.Response(text=made, status=route.success)
        if isinstance(made, WithSession):
            response = json_answer(codec.dumps(encode(made.answer)), route.success, who.signed)
            browser.give_session(response, made, request.secure)
            return response
        text = made.text if isinstance(made, Encoded) else codec.dumps(encode(made))
        return json_answer(text, route.success, who.signed)

    async def stream(request: web.Request, asked: Any, who: Identified, part: Range | None) -> web.StreamResponse:
        return await _stream(request, await answer.handler(edge.state, who.caller, asked), who.signed, part)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        browser.refuse_other_sites(request)
        body = await _read(request, route.body_limit_bytes) if route.has_body else b""
        try:
            who = edge.identify(incoming_of(request, body))
        except sign.SignAgain as stale:
            return refusal(stale, stale.signed)
        try:
            if who.ambient is not None:
                browser.refuse_strange_names(request.host, edge.knows_name)
                browser.refuse_forged(route, request.headers, who.ambient)
            return await serve(request, body, who)
        except errors.RiverError as refused:
            edge.refused(route, who.caller, refused)
            return refusal(refused, who.signed)

    return endpoint


async def until_cut(
    edge: Edge[S], owns: Ownership, caller: Caller, asked: Any, work: Awaitable[web.StreamResponse]
) -> web.StreamResponse:
    """What takes long ends at once when the caller may no longer have it."""
    try:
        async with asyncio.timeout(None) as scope:

            def cut() -> None:
                scope.reschedule(0.0)

            with edge.watch(caller, cut), edge.watch_use(caller, owns, asked, cut):
                return await work
    except TimeoutError:
        if not scope.expired():
            raise
        raise ConnectionResetError("the caller's login has ended") from None


def incoming_of(request: web.Request, body: bytes, ticket: str = "") -> Incoming:
    """What is known of a request before anybody is known."""
    signing = sign.Request(request.method, request.rel_url.raw_path, request.rel_url.raw_query_string, body)
    return Incoming(request.headers, request.remote or "", signing, browser.session_of(request), ticket)


def allow(entry: Entry, who: Identified) -> None:
    """Raises NotLoggedIn or NotAllowed when the role does not suffice."""
    if who.caller.may(entry.needs):
        return
    if who.caller.role is Role.ANONY:
        raise errors.NotLoggedIn(who.hint)
    raise errors.NotAllowed(f"this needs the role {entry.needs.label}; you are {who.caller.role.label}")


def refuse_packed(request: web.Request) -> None:
    """Raises WrongContentType for a body in some Content-Encoding: none is ever unpacked."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise errors.WrongContentType("body: must be sent as it is, without a Content-Encoding")


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    refuse_packed(request)
    if request.body_exists and request.content_type != "application/json":
        raise errors.WrongContentType("body: must be sent as Content-Type: application/json")
    if (request.content_length or 0) > limit_bytes:
        raise errors.TooLarge(f"body: larger than {limit_bytes} bytes")
    await invite_body(request)
    parts, total = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while part := await request.content.readany():
                parts.append(part)
                total += len(part)
                if total > limit_bytes:
                    raise errors.TooLarge(f"body: larger than {limit_bytes} bytes")
    except TimeoutError:
        raise errors.BadRequest(f"body: did not arrive within {BODY_TIMEOUT_SECONDS:g} seconds") from None
    return b"".join(parts)


def _members(
    request: web.Request, route: Route[Any, Any], body: bytes, parse: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    members: dict[str, Any] = codec.loads(body) if body else {}
    if type(members) is not dict:
        raise errors.BadRequest("body: expected an object")
    texts = [*request.match_info.items(), *request.query.items()]
    for name, _ in texts:
        if route.has_body and name not in route.path_fields:
            raise errors.BadRequest(f"{name[:100]}: belongs into the body, not into the query")
    return members_in(texts, parse, members)


def members_in(
    texts: Iterable[tuple[str, str]], parse: Mapping[str, Callable[[str], Any]], members: dict[str, Any]
) -> dict[str, Any]:
    """Add what stands in path and query to the members; raises BadRequest for what is given twice."""
    for name, text in texts:
        if name in members:
            raise errors.BadRequest(f"{name[:100]}: given twice")
        members[name] = parse[name](text) if name in parse else text
    return members


def parsers_of(entry: Entry) -> Mapping[str, Callable[[str], Any]]:
    """How each member is read from a path or a query."""
    return _parsers_of_members(cast(Any, entry.takes))


@functools.cache
def _parsers_of_members(kind: Any) -> Mapping[str, Callable[[str], Any]]:
    return {name: _text_parser(hint) for name, hint in codec.hints_of(kind).items()}


def _text_parser(kind: Any) -> Callable[[str], Any]:
    """How a query or path text becomes the JSON value that the decoder expects; what does not parse stays text."""
    inner, _ = codec.strip_optional(kind)
    if inner is bool:
        return lambda text: {"true": True, "false": False}.get(text, text)
    if inner in (int, float):
        return _number_or_text
    if get_origin(inner) in (list, tuple):
        return lambda text: text.split(",") if text else []
    return lambda text: text


def _number_or_text(text: str) -> Any:
    try:
        found = json.loads(text) if len(text) <= 20 else text
    except ValueError:
        return text
    return found if type(found) in (int, float) else text


def json_answer(text: str, status: int, signed: sign.Signed | None) -> web.Response:
    """JSON text as an answer, signed for who signed."""
    body = text.encode()
    answer = web.Response(body=body, status=status, content_type="application/json")
    if signed:
        answer.headers[sign.ANSWER_HEADER] = sign.answer_mac(signed.key, signed.nonce, status, body)
    return answer


def refusal(error: errors.RiverError, signed: sign.Signed | None) -> web.Response:
    """The answer that tells an error."""
    answer = _error(error.status, error.code, str(error), error.details, signed)
    if "retry_after_seconds" in error.details:
        answer.headers["Retry-After"] = str(error.details["retry_after_seconds"])
    if isinstance(error, errors.OutOfRange):
        answer.headers["Content-Range"] = f"bytes */{error.details.get('size_bytes', '*')}"
    return answer


def _error(
    status: int, code: str, message: str, details: Mapping[str, Any] | None = None, signed: sign.Signed | None = None
) -> web.Response:
    told = {"error": {"code": code, "message": message, "details": dict(details or {})}}
    return json_answer(codec.dumps(told), status, signed)


async def _stream(
    request: web.Request, made: Streamed, signed: sign.Signed | None, asked: Range | None
) -> web.StreamResponse:
    try:
        part = ranges.part_of(asked, made.headers) if asked else ranges.Part(200, made.headers)
        answer = web.StreamResponse(
            status=part.status, headers={"Content-Type": "application/octet-stream", **part.headers}
        )
        if signed:
            answer.headers[sign.ANSWER_HEADER] = sign.answer_mac(signed.key, signed.nonce, part.status, sign.STREAM)
        await answer.prepare(request)
        async for chunk in part.of(made.chunks):
            await answer.write(chunk)
        await answer.write_eof()
    finally:
        await made.release()
    return answer


@web.middleware
async def _errors_to_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.RiverError as refused:
        return refusal(refused, None)
    except web.HTTPNotFound:
        return _error(404, errors.NotFound.code, f"there is nothing at {codec.shown(request.path)}")
    except web.HTTPMethodNotAllowed as refused:
        answer = _error(405, errors.MethodNotAllowed.code, f"{request.method[:20]} is not possible here")
        answer.headers["Allow"] = ", ".join(request.app[METHODS].get(request.path) or sorted(refused.allowed_methods))
        return answer
    except web.HTTPException as refused:
        return _error(refused.status, errors.BadRequest.code, refused.reason)
    except ConnectionResetError:  # a stream broke off: the caller went away, or must see that it is not whole
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # it goes nowhere, while an exception would be logged as a failure of the server
    except Exception:
        log.exception("request failed method=%s path=%s", request.method, request.path)
        if request.writer.output_size:
            raise  # a stream broke in the middle: cutting the connection is the only truth left
        return _error(500, "internal", "the program failed; its log has the reason")
