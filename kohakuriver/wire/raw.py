"""Sockets without WebSocket: after `Upgrade: kohakuriver-stream` both directions carry records.

A record is `>BI` (kind, length) and so many bytes: 0 bytes, 1 text (UTF-8), 2 close (`>H` code, then the reason in UTF-8).
Nothing is masked or compressed, and whoever stands in the middle need not look inside. Standard library only, because
client commands use it.
"""

import asyncio
import hashlib
import hmac
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from kohakuriver.wire.sockets import LOST, MAX_MESSAGE_BYTES, NORMAL, TOO_BIG, Message, Socket

UPGRADE = "kohakuriver-stream"
PROTOCOL_HEADER = "Sec-WebSocket-Protocol"
BYTES, TEXT, CLOSE = 0, 1, 2
BUFFER_BYTES = 256 * 1024
CONNECT_SECONDS, ANSWER_SECONDS, GOODBYE_SECONDS = 3.0, 15.0, 2.0
MAX_BODY_BYTES = 1 << 20
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
UNANSWERED_MS = 30_000
_HEADER = struct.Struct(">BI")


class NotConnected(OSError):
    """No connection could be made, so nobody has seen the request."""


class NotRaw(ConnectionResetError):
    """The peer sends what is no record."""


class RawSocket(Socket):
    """Records over one connection; `receive` for one reader at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str = "") -> None:
        self.offers: Sequence[str] = ()
        self.protocol = protocol
        self.close_code, self.close_reason = LOST, ""
        self._reader, self._writer = reader, writer
        watch_peer(writer.transport)

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        try:
            kind, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            if length > MAX_MESSAGE_BYTES or kind > CLOSE:
                await self._refuse()
                return None
            body = await self._reader.readexactly(length)
            return self._understood(kind, body)
        except (asyncio.IncompleteReadError, OSError):
            return None
        except (UnicodeDecodeError, struct.error):
            await self._refuse()
            return None

    async def send(self, message: Message) -> None:
        kind, body = (TEXT, message.encode()) if isinstance(message, str) else (BYTES, message)
        await self.write(_HEADER.pack(kind, len(body)) + body)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if self._writer.is_closing():
            return
        told = struct.pack(">H", code) + reason.encode()
        self._writer.write(_HEADER.pack(CLOSE, len(told)) + told)
        await self.hang_up()

    async def read(self) -> bytes:
        """Records as they travel, in any cuts, for who hands them on; empty at the end."""
        with suppress(OSError):
            return await self._reader.read(BUFFER_BYTES)
        return b""

    async def write(self, records: bytes) -> None:
        """Send records as they travel; raises ConnectionResetError when the peer is gone."""
        if self._writer.is_closing():
            raise ConnectionResetError("the socket is closed")
        self._writer.write(records)
        try:
            await self._writer.drain()
        except OSError as broken:
            raise ConnectionResetError(str(broken)) from None

    async def hang_up(self) -> None:
        """Close the connection, with limited patience for what is still to be sent."""
        self._writer.close()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass

    def _understood(self, kind: int, body: bytes) -> Message | None:
        if kind == BYTES:
            return body
        if kind == TEXT:
            return body.decode()
        self.close_code = struct.unpack_from(">H", body)[0]
        self.close_reason = body[2:].decode()
        self._writer.close()
        return None

    async def _refuse(self) -> None:
        self.close_reason = "the peer sent what is no record"
        await self.close(TOO_BIG, "not a record of ours")


def watch_peer(transport: asyncio.BaseTransport) -> None:
    """Have the kernel notice, within half a minute, that the peer is gone without a word."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a program listens; over TLS if there is a context, and then (if given) with just that certificate (SHA-256)."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back: an open socket (status 101), or why not. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    socket: RawSocket | None = None


async def dial(address: Address, target: str, headers: Mapping[str, str], protocol: str = "") -> Answered:
    """Ask for a channel; raises NotConnected when nobody is there, OSError when no answer comes or none of ours."""
    reader, writer = await _connected(address)
    with ExitStack() as unless_open:
        unless_open.callback(writer.close)
        _check_certificate(address, writer)
        async with asyncio.timeout(ANSWER_SECONDS):
            answered = await _ask(reader, writer, _request(address, target, headers, protocol))
        if answered.socket is not None:
            unless_open.pop_all()
    return answered


async def _connected(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(address.host, address.port, ssl=address.tls, limit=BUFFER_BYTES // 2)
    except OSError as refused:
        raise NotConnected(str(refused) or "no connection in time") from refused


def _check_certificate(address: Address, writer: asyncio.StreamWriter) -> None:
    if address.fingerprint:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if not hmac.compare_digest(hashlib.sha256(shown).digest(), address.fingerprint):
            raise ConnectionResetError("it shows another certificate than the one that is known")


def _request(address: Address, target: str, headers: Mapping[str, str], protocol: str) -> bytes:
    name = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"GET {target} HTTP/1.1", f"Host: {name}:{address.port}", "Connection: Upgrade", f"Upgrade: {UPGRADE}"]
    lines += [f"{PROTOCOL_HEADER}: {protocol}"] if protocol else []
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Answered:
    writer.write(request)
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status == 101:
            opened = RawSocket(reader, writer, headers.get(PROTOCOL_HEADER.lower(), ""))
            return Answered(status, headers, socket=opened)
        length = min(int(headers.get("content-length", "0")), MAX_BODY_BYTES)
        return Answered(status, headers, await reader.readexactly(length))
    except (EOFError, asyncio.LimitOverrunError, ValueError, IndexError) as strange:
        raise NotRaw(f"the answer is no HTTP ({strange or 'it ended'})") from None
