"""What a channel tells as things happen, and again after the connection broke."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kohakuriver.client.channel import open_channel
from kohakuriver.client.command import Order
from kohakuriver.model.errors import Conflict, HostUnreachable, NotFound, TooMany, Unavailable
from kohakuriver.model.route import Channel
from kohakuriver.wire.sockets import NORMAL, error_in

Q = TypeVar("Q")
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, PATIENCE_SECONDS = 0.2, 3.0, 600.0


async def follow(
    order: Order, channel: Channel[Q], request: Callable[[], Q], tell: Callable[[str], None], missed: str = ""
) -> None:
    """Until there is nothing to tell any more; a host that goes away is waited for, if it told anything before.

    `request` says what to ask for, each time; `missed` what that costs whoever waits. Raises RiverError.
    """
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    worked_at: float | None = None
    while True:
        try:
            socket = await open_channel(order.session, channel, request())
            try:
                while isinstance(message := await socket.receive(), str):
                    worked_at, pause = loop.time(), FIRST_PAUSE_SECONDS
                    tell(message)
            finally:
                await socket.hang_up()
            if socket.close_code == NORMAL:
                return
            raise error_in(socket.close_code, socket.close_reason) or HostUnreachable("the host goes away")
        except (Unavailable, TooMany) as away:
            if worked_at is None or loop.time() - worked_at > PATIENCE_SECONDS:
                raise
            order.notes.hint(f"{away}{missed}")
        except (NotFound, Conflict):
            if worked_at is None:
                raise
            return  # it ended while nobody could be asked
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
