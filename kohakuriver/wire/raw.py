"""Sockets without WebSocket: after `Upgrade: kohakuriver-stream` both directions carry records (`wire/records.py`).

Nothing is masked or compressed, and whoever stands in the middle need not look inside. Standard library only, because
client commands use it.
"""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from kohakuriver.wire import records
from kohakuriver.wire.line import Line
from kohakuriver.wire.sockets import LOST, NORMAL, TOO_BIG, Message, Socket

UPGRADE = "kohakuriver-stream"
PROTOCOL_HEADER = "Sec-WebSocket-Protocol"
CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 15.0
MAX_BODY_BYTES = 1 << 20


class NotConnected(OSError):
    """No connection could be made, so nobody has seen the request."""


class NotRaw(ConnectionResetError):
    """The peer sends what is no record."""


class RawSocket(Socket):
    """Records over one connection; `receive` for one reader at a time."""

    def __init__(self, line: Line, protocol: str = "") -> None:
        self.offers: Sequence[str] = ()
        self.protocol = protocol
        self.close_code, self.close_reason = LOST, ""
        self.line, self.borders = line, records.Borders()

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        try:
            kind, length = await self._header()
            body = await self.line.exactly(length)
            if kind == records.CLOSE:
                self.understand(records.read_closing(body))
                return None
            return body.decode() if kind == records.TEXT else body
        except EOFError:
            return None
        except ValueError:
            await self.refuse()
            return None

    async def _header(self) -> tuple[int, int]:
        while (found := records.read_header(await self.line.exactly(records.HEADER.size)))[0] == records.NOTHING:
            pass
        return found

    def poke(self) -> None:
        """Send what means nothing, if that does not tear a record that is being handed on."""
        if self.borders.is_at_one:
            self.line.put(records.record(records.NOTHING, b""))

    async def send(self, message: Message) -> None:
        kind, body = (records.TEXT, message.encode()) if isinstance(message, str) else (records.BYTES, message)
        await self.line.write(records.record(kind, body))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if not self.line.is_gone:
            self.line.put(records.closing(code, reason))
            await self.line.close()

    async def hang_up(self) -> None:
        """Close the connection, with limited patience for what is still to be sent."""
        await self.line.close()

    def understand(self, closed: tuple[int, str]) -> None:
        """The peer has said goodbye so."""
        self.close_code, self.close_reason = closed
        self.line.transport.close()

    async def refuse(self) -> None:
        """Part with a peer that sends what is no record."""
        self.close_reason = "the peer sent what is no record"
        await self.close(TOO_BIG, "not a record of ours")


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
    line = await _connected(address)
    with ExitStack() as unless_open:
        unless_open.callback(line.transport.close)
        _check_certificate(address, line)
        async with asyncio.timeout(ANSWER_SECONDS):
            answered = await _ask(line, _request(address, target, headers, protocol))
        if answered.socket is not None:
            unless_open.pop_all()
    return answered


async def _connected(address: Address) -> Line:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return (await loop.create_connection(Line, address.host, address.port, ssl=address.tls))[1]
    except OSError as refused:
        raise NotConnected(str(refused) or "no connection in time") from refused


def _check_certificate(address: Address, line: Line) -> None:
    if address.fingerprint:
        shown = line.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if not hmac.compare_digest(hashlib.sha256(shown).digest(), address.fingerprint):
            raise ConnectionResetError("it shows another certificate than the one that is known")


def _request(address: Address, target: str, headers: Mapping[str, str], protocol: str) -> bytes:
    name = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"GET {target} HTTP/1.1", f"Host: {name}:{address.port}", "Connection: Upgrade", f"Upgrade: {UPGRADE}"]
    lines += [f"{PROTOCOL_HEADER}: {protocol}"] if protocol else []
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


async def _ask(line: Line, request: bytes) -> Answered:
    line.put(request)
    try:
        first, *lines = (await line.through(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status == 101:
            opened = RawSocket(line, headers.get(PROTOCOL_HEADER.lower(), ""))
            return Answered(status, headers, socket=opened)
        length = min(int(headers.get("content-length", "0")), MAX_BODY_BYTES)
        return Answered(status, headers, await line.exactly(length))
    except (EOFError, ValueError, IndexError) as strange:
        raise NotRaw(f"the answer is no HTTP ({strange or 'it ended'})") from None
