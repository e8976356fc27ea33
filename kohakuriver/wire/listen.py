"""Listen for an application: what comes from outside and is not even HTTP is answered and logged as briefly as the rest."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from kohakuriver.model import codec, errors
from kohakuriver.wire.serve import refusal

log = logging.getLogger(__name__)
IDLE_SECONDS = 60.0


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


@asynccontextmanager
async def listening(
    app: web.Application, address: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the block runs, with `tls` over TLS; gives the port (port 0: any free one).

    Raises OSError when the port is taken.

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

    try:
        server = await loop.create_server(connection, address, port, backlog=1024, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()
