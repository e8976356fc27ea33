"""What changes in the files of a workload, told as it happens, and again after a connection broke."""

import asyncio
from collections.abc import Callable
from typing import Any

from kohakuriver.client.channel import open_channel
from kohakuriver.client.command import Order
from kohakuriver.model import codec
from kohakuriver.model.errors import Conflict, NotFound, Unavailable
from kohakuriver.model.files import FileChanges
from kohakuriver.model.route import Channel
from kohakuriver.wire.sockets import error_in

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, PATIENCE_SECONDS = 0.2, 3.0, 600.0
Tell = Callable[[FileChanges], None]


async def follow_changes(order: Order, channel: Channel[Any], request: Any, tell: Tell) -> None:
    """Until there is nothing to watch any more; raises RiverError, also when the host stays away."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    worked_at: float | None = None
    while True:
        try:
            socket = await open_channel(order.session, channel, request, "")
            while isinstance(message := await socket.receive(), str):
                worked_at, pause = loop.time(), FIRST_PAUSE_SECONDS
                tell(codec.decode(FileChanges, codec.loads(message), strict=False))
            error = error_in(socket.close_code, socket.close_reason)
            if error is None:
                return
            raise error
        except Unavailable as away:
            if worked_at is None or loop.time() - worked_at > PATIENCE_SECONDS:
                raise
            order.notes.hint(f"{away}; what changes meanwhile is missed")
        except (NotFound, Conflict):
            if worked_at is None:
                raise
            return  # it ended while nobody could be asked
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
