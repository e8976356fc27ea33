"""Bind the channels of a table: one request becomes a socket, behind the same edge as every route.

In order: identify, allow, decode, guard, hand over. Whatever is wrong before the handler has opened the socket is an
ordinary HTTP refusal; afterwards it is a close code. A handler may be cancelled once its peer is gone, and is when its
caller may no longer do what he does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiohttp import WSMsgType, hdrs, web

from kohakuriver.model import codec, errors
from kohakuriver.model.access import Caller, Ownership
from kohakuriver.model.route import Channel
from kohakuriver.wire import browser, sign
from kohakuriver.wire.line import Line
from kohakuriver.wire.pulse import Pulse
from kohakuriver.wire.raw import PROTOCOL_HEADER, UPGRADE, RawSocket
from kohakuriver.wire.serve import (
    SOCKETS,
    Edge,
    Endpoint,
    Identified,
    allow,
    incoming_of,
    members_in,
    parsers_of,
    refusal,
)
from kohakuriver.wire.sockets import (
    GOING_AWAY,
    LOST,
    MAX_MESSAGE_BYTES,
    NORMAL,
    Message,
    Socket,
    closing_of,
)

log = logging.getLogger(__name__)
S = TypeVar("S")
Q = TypeVar("Q")
PING = b"\x89\x00"  # a whole frame of its own (RFC 6455, 5.5.2), which may stand between any two others
TICKET = "ticket"
ChannelHandler = Callable[[S, Caller, Q, Socket], Awaitable[None]]


@dataclass(frozen=True)
class ChannelAnswer(Generic[S]):
    """A channel and the function that serves it; `on_channel` makes one, type-checked."""

    route: Channel[Any]
    handler: ChannelHandler[S, Any]

    def bind(self, edge: Edge[S]) -> Endpoint:
        """The whole way of a request behind this edge."""
        return _endpoint(self, edge)


def on_channel(channel: Channel[Q], handler: ChannelHandler[S, Q]) -> ChannelAnswer[S]:
    """Serve a channel; the socket is closed when the handler returns."""
    return ChannelAnswer(channel, handler)


class ServerSocket(Socket):
    """The server's end: a WebSocket or a raw one, whichever was asked for; it opens when it is first used."""

    def __init__(self, request: web.Request, signed: sign.Signed | None) -> None:
        offered = request.headers.get(PROTOCOL_HEADER, "")
        self.offers: Sequence[str] = tuple(word.strip() for word in offered.split(",") if word.strip())
        self.protocol = ""
        self.close_code, self.close_reason = LOST, ""
        self._request, self._signed = request, signed
        self._inner: Socket | None = None
        self._pulse: Pulse | None = None
        self.gone: Callable[[], None] = lambda: None
        self.response: web.StreamResponse | None = None

    @property
    def is_open(self) -> bool:
        return self._inner is not None

    @property
    def carrier(self) -> Socket:
        return self._inner or self

    async def open(self, protocol: str = "") -> None:
        if self._inner is not None:
            return
        self.protocol = protocol
        headers = {}
        if self._signed:
            mac = sign.answer_mac(self._signed.key, self._signed.nonce, 101, sign.STREAM)
            headers[sign.ANSWER_HEADER] = mac
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        if self._request.headers.get(hdrs.UPGRADE, "").lower() == UPGRADE:
            self.response = _Taken(self._request, headers, protocol)
            self._inner = self.response.socket
            self._watch(self._inner.poke)
        else:
            ws = web.WebSocketResponse(
                compress=False,
                max_msg_size=MAX_MESSAGE_BYTES,
                protocols=(protocol,) if protocol else (),
            )
            ws.headers.update(headers)
            self.response, self._inner = ws, _WebSocket(ws)
            await ws.prepare(self._request)
            self._watch(lambda: transport.write(PING), pokes_always=True)  # which also keeps awake who is between
        self._request.app[SOCKETS].add(self)

    async def receive(self) -> Message | None:
        message = await (await self._opened()).receive()
        if message is None and self._inner is not None and self.close_code == LOST:
            self.close_code, self.close_reason = (self._inner.close_code, self._inner.close_reason)
        return message

    async def send(self, message: Message) -> None:
        await (await self._opened()).send(message)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if self._inner is not None:
            await self._inner.close(code, reason)

    async def hang_up(self) -> None:
        if self._inner is not None:
            await self._inner.hang_up()

    async def release(self) -> None:
        """Give the connection back to the server, closed."""
        if self._pulse is not None:
            self._pulse.stop()
        self._request.app[SOCKETS].discard(self)
        if isinstance(self.response, _Taken):
            self.response.give_back()

    def _watch(self, poke: Callable[[], None], *, pokes_always: bool = False) -> None:
        assert self._request.transport is not None
        self._pulse = Pulse(self._request.transport, poke, lambda: self.gone(), pokes_always=pokes_always)

    async def _opened(self) -> Socket:
        await self.open(self.protocol)
        assert self._inner is not None
        return self._inner


class _WebSocket(Socket):
    """A WebSocket of aiohttp (RFC 6455), without its heartbeats: a reader who is held up does not see their answers."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.offers: Sequence[str] = ()
        self.protocol = ""
        self.close_code, self.close_reason = LOST, ""
        self._ws = ws

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        heard = await self._ws.receive()
        if heard.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            message: Message = heard.data
            return message
        if heard.type is WSMsgType.CLOSE:
            self.close_code, self.close_reason = (heard.data or NORMAL, str(heard.extra or ""))
        return None

    async def send(self, message: Message) -> None:
        if self._ws.closed:
            raise ConnectionResetError("the socket is closed")
        if isinstance(message, str):
            await self._ws.send_str(message)
        else:
            await self._ws.send_bytes(message)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        with suppress(ConnectionResetError):
            await self._ws.close(code=code, message=reason.encode()[:123])

    async def hang_up(self) -> None:
        await self.close(GOING_AWAY)


class _Taken(web.StreamResponse):
    """The answer that turns a connection into records; the server has nothing left to write."""

    def __init__(self, request: web.Request, headers: dict[str, str], protocol: str) -> None:
        super().__init__(status=101)
        self._server, transport = request.protocol, request.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        self._transport = transport
        self._line = Line()
        transport.set_protocol(self._line)
        self._line.connection_made(transport)
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {UPGRADE}"]
        lines += [f"{PROTOCOL_HEADER}: {protocol}"] if protocol else []
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._line.put("\r\n".join((*lines, "", "")).encode("latin-1"))
        self.socket = RawSocket(self._line, protocol)

    async def prepare(self, request: web.BaseRequest) -> None:
        """The head is written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """The socket says itself when it ends."""

    def give_back(self) -> None:
        """Let the server know that the connection is over."""
        if self._line.is_lost:
            asyncio.get_running_loop().call_soon(self._server.connection_lost, None)
        else:
            self._transport.set_protocol(self._server)
            self._server.force_close()


def _endpoint(answer: ChannelAnswer[S], edge: Edge[S]) -> Endpoint:
    channel, parse = answer.route, parsers_of(answer.route)

    def decoded(request: web.Request, who: Identified) -> Any:
        if who.ambient is not None:
            browser.refuse_strange_names(request.host, edge.knows_name)
            browser.refuse_without_ticket(who.ambient)
        allow(channel, who)
        query = ((name, text) for name, text in request.query.items() if name != TICKET)
        return codec.decode(channel.takes, members_in((*request.match_info.items(), *query), parse, {}))

    async def serve(request: web.Request, who: Identified, socket: ServerSocket) -> None:
        asked = decoded(request, who)
        async with _until_cut(socket) as cut:
            with edge.watch(who.caller, cut):
                if channel.owns is not Ownership.NOTHING:
                    await edge.guard(edge.state, who.caller, channel.owns, asked)
                _must_ask_for_a_socket(request)
                with edge.watch_use(who.caller, channel.owns, asked, cut):
                    await answer.handler(edge.state, who.caller, asked, socket)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        browser.refuse_other_sites(request)
        try:
            who = edge.identify(incoming_of(request, b"", request.query.get(TICKET, "")))
        except sign.SignAgain as stale:
            return refusal(stale, stale.signed)
        socket = ServerSocket(request, who.signed)
        try:
            await serve(request, who, socket)
        except errors.RiverError as refused:
            edge.refused(channel, who.caller, refused)
            if not socket.is_open:
                return refusal(refused, who.signed)
            await socket.close(*closing_of(refused))
        except ConnectionResetError:
            log.debug("a socket broke channel=%s", channel.name)
        finally:
            await socket.close()
            await socket.release()
        return socket.response or refusal(errors.NodeUnreachable("the socket was never opened"), who.signed)

    return endpoint


@asynccontextmanager
async def _until_cut(socket: ServerSocket) -> AsyncIterator[Callable[[], None]]:
    """A way to end the block at once, because the caller may no longer have it; raises NotLoggedIn then.

    It ends as well when he is gone, with ConnectionResetError.
    """
    ended = errors.NotLoggedIn("the login has ended, or what it reached is no longer yours")
    why: list[Exception] = []
    try:
        async with asyncio.timeout(None) as scope:

            def end(reason: Exception) -> None:
                if not why:
                    scope.reschedule(0.0)
                why.append(reason)

            def cut() -> None:
                socket.close_code, socket.close_reason = closing_of(ended)
                end(ended)

            socket.gone = lambda: end(ConnectionResetError("the caller is gone"))
            try:
                yield cut
            finally:
                socket.gone = lambda: None
    except TimeoutError:
        if not scope.expired():
            raise
        raise why[0] from None


def _must_ask_for_a_socket(request: web.Request) -> None:
    if request.headers.get(hdrs.UPGRADE, "").lower() not in ("websocket", UPGRADE):
        raise errors.BadRequest("this is a socket: open it as a WebSocket")
