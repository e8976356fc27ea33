"""Plain HTTP with the Docker daemon on the event loop, for quick looks and for what flows for long."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kohakuriver.system.docker_errors import ApiRefused, unreachable

# The reader holds at most twice this before it stops reading from the socket: that holds up the container in turn.
READ_BYTES = 128 * 1024
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RawStream:
    """An answer of the daemon: its headers (names in lower case), and its body up to the end of the connection."""

    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        """The next bytes; empty at the end, which is also how a daemon's death looks."""
        with suppress(ConnectionError):
            return await self.reader.read(READ_BYTES)
        return b""

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def reading(stream: RawStream) -> AsyncIterator[RawStream]:
    """Hang up in the end, however it ends."""
    try:
        yield stream
    finally:
        await stream.close()


async def get(socket: str, target: str) -> RawStream:
    """Ask for a resource; the body comes without chunks because we speak HTTP/1.0. Raises as `ask` does."""
    return await ask(socket, f"GET {target} HTTP/1.0\r\n\r\n")


def request(method: str, target: str, body: Any = None, version: str = "HTTP/1.0", headers: str = "") -> str:
    """The text of a request with a body of JSON, if any; more headers as lines."""
    text = "" if body is None else json.dumps(body)  # which is ASCII
    kind = "" if body is None else "Content-Type: application/json\r\n"
    head = f"{method} {target} {version}\r\nHost: docker\r\n{headers}{kind}"
    return f"{head}Content-Length: {len(text)}\r\n\r\n{text}"


async def ask_json(socket: str, asked: str, seconds: float = ANSWER_SECONDS) -> Any:
    """Send a request whose answer is JSON, or nothing; raises as `ask` does."""
    try:
        async with asyncio.timeout(seconds), reading(await ask(socket, asked, seconds)) as answer:
            return json.loads(await answer.reader.read() or b"null")
    except (OSError, ValueError) as error:
        raise unreachable(socket, error) from None


async def ask(socket: str, request: str, seconds: float = ANSWER_SECONDS) -> RawStream:
    """Send a request on a connection of its own; raises ApiRefused, and EngineFailed when there is no answer."""
    try:
        async with asyncio.timeout(seconds):
            return await _ask(socket, request)
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
        raise unreachable(socket, error) from None


async def _ask(socket: str, request: str) -> RawStream:
    reader, writer = await asyncio.open_unix_connection(socket, limit=READ_BYTES // 2)
    with ExitStack() as unless_well:
        unless_well.callback(writer.close)
        writer.write(request.encode("latin-1"))
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if status >= HTTPStatus.BAD_REQUEST:
            raise ApiRefused(status, _explanation(await reader.read(READ_BYTES)))
        unless_well.pop_all()
    return RawStream(headers, reader, writer)


def _explanation(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
