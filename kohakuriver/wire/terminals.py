"""The beginning of a terminal's socket: what a program asks for in its first frame."""

import asyncio

from kohakuriver.model import codec
from kohakuriver.model import terminal as frames
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.stream_api import StartTerminal
from kohakuriver.model.terminal import Kind
from kohakuriver.wire.sockets import Socket

START_SECONDS = 10.0


async def start_of(socket: Socket) -> StartTerminal:
    """What the peer asks for; raises BadRequest, ConnectionResetError when it has gone."""
    try:
        async with asyncio.timeout(START_SECONDS):
            message = await socket.receive()
    except TimeoutError:
        raise BadRequest("frame: START did not come in time") from None
    if message is None:
        raise ConnectionResetError("nobody is there any more")
    kind, payload = frames.split(message)
    if kind is not Kind.START:
        raise BadRequest("frame: the first one must be START")
    return codec.decode(StartTerminal, codec.loads(payload))
