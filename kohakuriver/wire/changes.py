"""What changes in a tree of files, told over a socket as it is found."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from kohakuriver.model import codec
from kohakuriver.model.errors import RiverError
from kohakuriver.model.files import FileChanges
from kohakuriver.wire.sockets import Socket, closing_of

CHANGES_AT_ONCE = 1000  # in one message


async def tell_changes(found: AsyncIterator[FileChanges], stop: Callable[[], None], socket: Socket) -> None:
    """Tell all that is found, to its end; `stop` has it end soon, when the peer has gone."""
    await asyncio.gather(_tell(found, socket), _hear(stop, socket))


async def _tell(found: AsyncIterator[FileChanges], socket: Socket) -> None:
    try:
        async for each in found:
            for start in range(0, max(1, len(each.changes)), CHANGES_AT_ONCE):
                part = replace(each, changes=each.changes[start : start + CHANGES_AT_ONCE])
                await socket.send(codec.encode_text(part))
        await socket.close()
    except RiverError as refused:
        await socket.close(*closing_of(refused))
    except ConnectionResetError:
        await socket.hang_up()


async def _hear(stop: Callable[[], None], socket: Socket) -> None:
    while await socket.receive() is not None:
        pass
    stop()
