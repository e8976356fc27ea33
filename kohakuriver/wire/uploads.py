"""Bind routes whose body is raw bytes: it is handed to the answer as it comes, no faster than that takes it.

In order: identify, allow, decode, guard, answer. Nothing of the body is read before somebody is let in; a signature
covers all but the body, as with answers that are streamed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiohttp import web

from kohakuriver.model import codec, errors
from kohakuriver.model.access import Caller, Ownership
from kohakuriver.model.route import Route
from kohakuriver.wire import browser, sign
from kohakuriver.wire.serve import (
    Edge,
    Endpoint,
    Identified,
    allow,
    incoming_of,
    invite_body,
    json_answer,
    members_in,
    parsers_of,
    refusal,
    refuse_packed,
    until_cut,
)

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")
PATIENCE_SECONDS = 120.0  # for the next byte
UploadHandler = Callable[[S, Caller, Q, "Body"], Awaitable[R]]


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes as they come, once they are wanted; `size` is how many there will be, if the sender said so."""

    chunks: AsyncIterator[bytes]
    size: int | None


@dataclass(frozen=True)
class UploadAnswer(Generic[S]):
    """A route and the function that takes its body; `on_upload` makes one, type-checked."""

    route: Route[Any, Any]
    handler: UploadHandler[S, Any, Any]

    def bind(self, edge: Edge[S]) -> Endpoint:
        """The whole way of a request behind this edge."""
        return _endpoint(self, edge)


def on_upload(route: Route[Q, R], handler: UploadHandler[S, Q, R]) -> UploadAnswer[S]:
    """Answer a route whose body is raw bytes with JSON."""
    return UploadAnswer(route, handler)


def _endpoint(answer: UploadAnswer[S], edge: Edge[S]) -> Endpoint:
    route, encode, parse = answer.route, codec.encoder(answer.route.gives), parsers_of(answer.route)

    async def serve(request: web.Request, who: Identified) -> web.StreamResponse:
        if who.ambient is not None:
            browser.refuse_strange_names(request.host, edge.knows_name)
            browser.refuse_forged(route, request.headers, who.ambient)
        allow(route, who)
        texts = (*request.match_info.items(), *request.query.items())
        asked = codec.decode(route.takes, members_in(texts, parse, {}))
        if route.owns is not Ownership.NOTHING:
            await edge.guard(edge.state, who.caller, route.owns, asked)
        _refuse_unfit(request, route)
        return await until_cut(edge, route.owns, who.caller, asked, take(request, asked, who))

    async def take(request: web.Request, asked: Any, who: Identified) -> web.StreamResponse:
        made = await answer.handler(edge.state, who.caller, asked, _body(request, route.body_limit_bytes))
        return json_answer(codec.dumps(encode(made)), route.success, who.signed)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        browser.refuse_other_sites(request)
        try:
            who = edge.identify(incoming_of(request, sign.STREAM))
        except sign.SignAgain as stale:
            return refusal(stale, stale.signed)
        try:
            return await serve(request, who)
        except errors.RiverError as refused:
            edge.refused(route, who.caller, refused)
            return refusal(refused, who.signed)

    return endpoint


def _refuse_unfit(request: web.Request, route: Route[Any, Any]) -> None:
    refuse_packed(request)
    if request.content_type != "application/octet-stream":
        raise errors.WrongContentType("body: must be sent as Content-Type: application/octet-stream")
    if (request.content_length or 0) > route.body_limit_bytes:
        raise _too_large(route.body_limit_bytes)


def _body(request: web.Request, limit_bytes: int) -> Body:
    return Body(_chunks(request, limit_bytes), request.content_length)


async def _chunks(request: web.Request, limit_bytes: int) -> AsyncIterator[bytes]:
    await invite_body(request)
    total = 0
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise errors.BadRequest(f"body: nothing came for {PATIENCE_SECONDS:g} seconds") from None
        if not chunk:
            return
        total += len(chunk)
        if total > limit_bytes:
            raise _too_large(limit_bytes)
        yield chunk


def _too_large(limit_bytes: int) -> errors.TooLarge:
    return errors.TooLarge(f"body: larger than {limit_bytes} bytes")
