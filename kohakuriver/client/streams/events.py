"""What changes in the cluster, told as it happens, and from where it broke off after a connection broke."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from kohakuriver.client.channel import open_channel
from kohakuriver.client.command import Order
from kohakuriver.model import codec, events
from kohakuriver.model.errors import NotFound, TooMany, Unavailable
from kohakuriver.model.events import Event, FollowEvents
from kohakuriver.wire.sockets import error_in

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, PATIENCE_SECONDS = 0.2, 3.0, 600.0
Tell = Callable[[Event], None]


async def follow_events(order: Order, request: FollowEvents, tell: Tell) -> None:
    """Until interrupted; a host that goes away is waited for, and nothing it remembers is missed. Raises RiverError."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    worked_at: float | None = None
    while True:
        try:
            socket = await open_channel(order.session, events.EVENTS, request)
            try:
                while isinstance(message := await socket.receive(), str):
                    worked_at, pause = loop.time(), FIRST_PAUSE_SECONDS
                    event = codec.decode(Event, codec.loads(message), strict=False)
                    request = replace(request, since=event.seq)
                    tell(event)
            finally:
                await socket.hang_up()
            if error := error_in(socket.close_code, socket.close_reason):
                raise error
        except (Unavailable, TooMany) as away:
            if worked_at is None or loop.time() - worked_at > PATIENCE_SECONDS:
                raise
            order.notes.hint(str(away))
        except NotFound:
            raise Unavailable("this host has no feed of events: it is older than this command") from None
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
