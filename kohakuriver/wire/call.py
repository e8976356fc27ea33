"""Call a route on another program, and get its typed answer or its typed error."""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from kohakuriver.model import codec, errors
from kohakuriver.model.route import ByteStream, Channel, Route
from kohakuriver.wire import raw, sign
from kohakuriver.wire.refusals import error_of

Q = TypeVar("Q")
R = TypeVar("R")
DEFAULT_TIMEOUT_SECONDS = 10.0
BUFFER_BYTES = 1 << 16
OCTETS = "application/octet-stream"


class NotDelivered(errors.NodeUnreachable):
    """No connection could be made, so the peer has certainly not seen the request."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One request as it goes out; the path and query are encoded already."""

    method: str
    url: URL
    body: bytes


@dataclass(slots=True)
class _Outgoing:
    """Bytes on their way out: nobody is waited for any longer than usual until the first is wanted."""

    chunks: AsyncIterator[bytes]
    patience: asyncio.Timeout | None = None
    failed: Exception | None = None

    async def begin(self) -> AsyncIterator[bytes]:
        if self.patience is not None:
            self.patience.reschedule(None)
        try:
            async for chunk in self.chunks:
                yield chunk
        except (errors.RiverError, ConnectionError) as failed:
            self.failed = failed
            raise


_Answered = tuple[int, Any, bytes]
_Send = Callable[[dict[str, str]], Awaitable[_Answered]]


class Peer:
    """One other program; keeps one HTTP session for all its calls.

    With a `fingerprint` (SHA-256 in hex) it must show just that certificate; else the session decides what is believed.
    """

    def __init__(self, http: aiohttp.ClientSession, base_url: str, signer: sign.Signer, fingerprint: str = "") -> None:
        self._http, self._base_url, self._signer = http, base_url.rstrip("/"), signer
        self._fingerprint = bytes.fromhex(fingerprint)
        self._believes = aiohttp.Fingerprint(self._fingerprint) if fingerprint else True

    async def call(self, route: Route[Q, R], request: Q, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> R:
        """The typed answer; raises what the peer refused with, NotDelivered, or NodeUnreachable when nobody knows."""
        prepared = self._prepare(route, request)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(3.0, timeout_seconds))
        content = {"Content-Type": "application/json"} if prepared.body else {}

        async def send(headers: dict[str, str]) -> _Answered:
            return await self._send(prepared, headers | content, timeout, data=prepared.body or None)

        return await self._converse(route, prepared, send)

    async def upload(self, route: Route[Q, R], request: Q, chunks: AsyncIterator[bytes], size: int | None = None) -> R:
        """Send raw bytes (`size` of them, if that is known) as they come, once the peer has agreed.

        Raises as `call` does, and what `chunks` raises.
        """
        prepared = replace(self._prepare(route, request), body=sign.STREAM)
        timeout, content = aiohttp.ClientTimeout(total=None, sock_connect=3.0), {"Content-Type": OCTETS}
        content |= {"Content-Length": str(size)} if size is not None else {}
        outgoing = _Outgoing(chunks)

        async def send(headers: dict[str, str]) -> _Answered:
            data = outgoing.begin()
            return await self._send(prepared, headers | content, timeout, data=data, expect100=True)

        try:
            async with asyncio.timeout(DEFAULT_TIMEOUT_SECONDS) as outgoing.patience:
                return await self._converse(route, prepared, send)
        except TimeoutError:
            raise errors.NodeUnreachable(f"{self._base_url}: no answer in time") from None
        except errors.NodeUnreachable:
            if outgoing.failed is not None:
                raise outgoing.failed from None
            raise

    async def _converse(self, route: Route[Q, R], prepared: _Prepared, send: _Send) -> R:
        for last in (False, True):
            headers, nonce = self._signer.sign(_covered(prepared))
            status, answer_headers, body = await send(headers)
            if not self._signer.trusts(answer_headers, nonce, status, body):
                raise self._distrust(status)
            if status < 400:
                return self._understand(route, body)
            self._raise_or_learn(status, body, last)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(
        self, route: Route[Q, ByteStream], request: Q, buffer_bytes: int = BUFFER_BYTES
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open answer of raw bytes, to be read chunk by chunk; raises as `call` does.

        Twice `buffer_bytes` may lie here unread before the peer is held up.
        """
        prepared = self._prepare(route, request)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0)
        for last in (False, True):
            headers, nonce = self._signer.sign(_covered(prepared))
            with self._honestly():
                async with asyncio.timeout(DEFAULT_TIMEOUT_SECONDS):
                    answer = await self._http.request(
                        prepared.method,
                        prepared.url,
                        headers=headers,
                        timeout=timeout,
                        ssl=self._believes,
                        read_bufsize=buffer_bytes,
                    )
                async with answer:
                    if answer.status < 400:
                        if not self._signer.trusts(answer.headers, nonce, answer.status, sign.STREAM):
                            raise self._distrust(answer.status)
                        yield answer
                        return
                    body = await answer.read()
            if not self._signer.trusts(answer.headers, nonce, answer.status, body):
                raise self._distrust(answer.status)
            self._raise_or_learn(answer.status, body, last)

    async def open(self, channel: Channel[Q], request: Q, protocol: str = "") -> raw.RawSocket:
        """A socket to the peer; raises as `call` does. `protocol` is the one offered, if it matters."""
        prepared = self._prepare(channel, request)
        for last in (False, True):
            headers, nonce = self._signer.sign(_covered(prepared))
            answered = await self._dial(prepared, headers, protocol)
            covers = answered.body if answered.socket is None else sign.STREAM
            mac = {sign.ANSWER_HEADER: answered.headers.get(sign.ANSWER_HEADER.lower(), "")}
            trusted = self._signer.trusts(mac, nonce, answered.status, covers)
            if answered.socket is not None:
                if trusted:
                    return answered.socket
                await answered.socket.hang_up()
            if not trusted:
                raise self._distrust(answered.status)
            self._raise_or_learn(answered.status, answered.body, last)
        raise AssertionError("unreachable")

    async def _dial(self, prepared: _Prepared, headers: dict[str, str], protocol: str) -> raw.Answered:
        url = prepared.url
        tls = _context(bool(self._fingerprint)) if url.scheme == "https" else None
        address = raw.Address(url.host or "", url.port or 0, tls, self._fingerprint)
        try:
            return await raw.dial(address, url.raw_path_qs, headers, protocol)
        except raw.NotConnected as broken:
            raise NotDelivered(f"{self._base_url}: {broken}") from broken
        except OSError as broken:
            raise errors.NodeUnreachable(f"{self._base_url}: {str(broken) or 'no answer in time'}") from broken

    def _prepare(self, route: Route[Q, R] | Channel[Q], request: Q) -> _Prepared:
        path, rest = route.split(codec.encoder(route.takes, compact=True)(request))
        url = URL(self._base_url + path, encoded=True)
        if route.has_body:
            return _Prepared(route.method, url, codec.dumps(rest).encode())
        return _Prepared(route.method, url.with_query({k: _plain(v) for k, v in rest.items()}), b"")

    async def _send(
        self, prepared: _Prepared, headers: dict[str, str], timeout: aiohttp.ClientTimeout, **how: Any
    ) -> _Answered:
        with self._honestly():
            async with self._http.request(
                prepared.method, prepared.url, headers=headers, timeout=timeout, ssl=self._believes, **how
            ) as answer:
                return answer.status, answer.headers, await answer.read()

    @contextmanager
    def _honestly(self) -> Iterator[None]:
        """What went wrong on the way, told apart by whether the peer can have seen the request."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as broken:
            raise NotDelivered(f"{self._base_url}: {str(broken) or 'no connection in time'}") from broken
        except (aiohttp.ClientError, TimeoutError) as broken:
            raise errors.NodeUnreachable(f"{self._base_url}: {str(broken) or 'no answer in time'}") from broken

    def _understand(self, route: Route[Q, R], body: bytes) -> R:
        try:
            return codec.decode(route.gives, codec.loads(body), strict=False)
        except errors.BadRequest as differs:  # it has done what was asked, and says so in words of another release
            raise errors.NodeUnreachable(f"{self._base_url}: its answer is not understood ({differs})") from differs

    def _distrust(self, status: int) -> errors.RiverError:
        """What an answer that is not signed with our key is worth: somebody else's, or one's who does not know us."""
        if status == errors.NotLoggedIn.status:
            return errors.NotLoggedIn(
                f"{self._base_url} does not know us: do both sides hold the same cluster secret? "
                "(If this node has joined: was its key revoked? `kohakuriver runner join` makes a new one)"
            )
        return errors.NodeUnreachable(f"{self._base_url}: the answer is not signed with our key (status {status})")

    def _raise_or_learn(self, status: int, body: bytes, last: bool) -> None:
        error = error_of(status, body)
        if last or not isinstance(error, errors.StaleSignature):
            raise error
        self._signer.learn(str(error.details["audience"]), float(error.details["now"]))


async def chunks_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The bytes of a streamed answer; raises ConnectionResetError when the peer goes away in the middle."""
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError as broken:
        raise ConnectionResetError(f"the peer went away in the middle: {broken}") from broken


@functools.cache
def _context(is_pinned: bool) -> ssl.SSLContext:
    """For TLS; a certificate that is known itself needs nobody to vouch for it."""
    if not is_pinned:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _covered(prepared: _Prepared) -> sign.Request:
    return sign.Request(prepared.method, prepared.url.raw_path, prepared.url.raw_query_string, prepared.body)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
