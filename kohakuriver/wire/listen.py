"""Listen for an application: what comes from outside and is not even HTTP is answered and logged as briefly as the rest."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from kohakuriver.model import codec, errors
from kohakuriver.wire.serve import refusal

log = logging.getLogger(__name__)
IDLE_SECONDS = 60.0
BACKLOG = 1024


class Connection(web.RequestHandler):
    """One connection: rubbish costs one line of the log and not a traceback, and its sender gets the usual shape."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no handler saw, and close; raises ConnectionError when an answer has begun."""
        if status >= 500 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        why = codec.shown((message or "").partition("\n")[0].rstrip(":"))
        log.info("not HTTP from=%s why=%s", request.remote, why)
        answer = refusal(errors.BadRequest(f"not HTTP as it should be: {why}"), None)
        answer.force_close()
        return answer


class Door:
    """Where a program is reached; it can move without cutting off who is inside. `port` is the same wherever it is."""

    def __init__(self, connect: Callable[[], Connection], address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._connect, self._tls = connect, tls
        self.address, self.port = address, port
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; raises OSError when the port is taken, or the address is not this machine's."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, self.address, self.port, backlog=BACKLOG, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def move(self, address: str) -> None:
        """Listen there, and no longer here; raises OSError as `open` does, and then stays here if that can be."""
        before, self.address = self.address, address
        self.close()  # first, for nobody can listen at one address beside who listens at all of them
        try:
            await self.open()
        except OSError:
            self.address = before
            with suppress(OSError):
                await self.open()
            raise


@asynccontextmanager
async def open_door(
    app: web.Application, address: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Door]:
    """Serve while the block runs, with `tls` over TLS; port 0: any free one. Raises OSError when the port is taken.

    A connection that is idle, or does not finish the head of a request, is closed after `IDLE_SECONDS`. Bodies are
    never unpacked, since a small one can be a huge one: who packs is told not to.
    """
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    loop = asyncio.get_running_loop()

    options: dict[str, Any] = {"keepalive_timeout": IDLE_SECONDS, "access_log": None, "auto_decompress": False}

    def connection() -> Connection:
        assert runner.server is not None  # it is set up
        return Connection(runner.server, loop=loop, **options)

    door = Door(connection, address, port, tls)
    try:
        await door.open()
        yield door
    finally:
        door.close()
        await runner.cleanup()


@asynccontextmanager
async def listening(
    app: web.Application, address: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the block runs, as `open_door` does it, at one address; gives the port."""
    async with open_door(app, address, port, tls) as door:
        yield door.port
