"""Join two sockets: what one side says the other hears, no faster than it listens."""

import asyncio

from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.sockets import LOGIN_ENDED, LOST, Socket


async def relay(caller: Socket, far: Socket) -> None:
    """Hand messages on in both directions until either side ends; then both are closed.

    Both hear it when the caller's login has ended; whatever else breaks looks to the far side like a broken line.
    """
    try:
        await asyncio.gather(_hand_on(caller.carrier, far), _hand_on(far, caller.carrier))
    finally:
        for end in (far, caller):
            if caller.close_code == LOGIN_ENDED:
                await end.close(LOGIN_ENDED, caller.close_reason)
            await end.hang_up()


async def _hand_on(source: Socket, target: Socket) -> None:
    """Until the source ends or the target is gone; then the target is closed as the source was."""
    try:
        if isinstance(source, RawSocket) and isinstance(target, RawSocket):
            while records := await source.read():  # the record that closes goes through as all others
                await target.write(records)
        else:
            while (message := await source.receive()) is not None:
                await target.send(message)
    except ConnectionResetError:
        return await source.hang_up()
    if source.close_code != LOST:
        await target.close(source.close_code, source.close_reason)
    await target.hang_up()
