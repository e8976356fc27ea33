"""Join two sockets: what one side says the other hears, no faster than it listens. Standard library only.

Every connection into a workload goes through here, on each program that it passes: between records and a plain
connection where it begins and ends, and record by record, unopened, on the host between.
"""

import asyncio
from dataclasses import dataclass

from kohakuriver.wire.line import HEAD_BYTES
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.records import BYTES, Unwrapping, record, wrapped
from kohakuriver.wire.sockets import LOGIN_ENDED, LOST, NORMAL, Socket

END = b""


async def relay(caller: Socket, far: Socket) -> bool:
    """Hand on in both directions until both have ended, or either side is gone; then both are closed.

    Whether it ended well. Both hear it when the caller's login has ended; whatever else breaks looks broken to the
    other side, too. Where one side is a plain connection, empty messages end a direction, and the other goes on.
    """
    joint = _Joint(isinstance(caller.carrier, PlainSocket) or isinstance(far.carrier, PlainSocket))
    try:
        await asyncio.gather(
            joint.hand_on(caller.carrier, far.carrier),
            joint.hand_on(far.carrier, caller.carrier),
        )
        return joint.ended_well
    finally:
        for end in (far, caller):
            if caller.close_code == LOGIN_ENDED:
                await end.close(LOGIN_ENDED, caller.close_reason)
            await end.hang_up()


@dataclass(slots=True)
class _Joint:
    """What both directions know of each other."""

    is_stream: bool
    ends: int = 0
    ended_well: bool = False

    @property
    def is_over(self) -> bool:
        """Whether neither side has more to say."""
        return self.ends == 2

    def one_end(self) -> None:
        """One direction has ended."""
        self.ends += 1

    async def hand_on(self, source: Socket, target: Socket) -> None:
        """Until the source ends or the target is gone; then the other is closed as the one was."""
        try:
            if isinstance(source, RawSocket) and isinstance(target, RawSocket):
                await _as_it_is(source, target)
            elif isinstance(source, PlainSocket) and isinstance(target, RawSocket):
                await self._wrap(source, target)
            elif isinstance(source, RawSocket) and isinstance(target, PlainSocket):
                await self._unwrap(source, target)
            elif isinstance(source, PlainSocket) and isinstance(target, PlainSocket):
                await self._plain(source, target)
            else:
                await self._by_messages(source, target)
        except ConnectionResetError:
            return await source.hang_up()
        await self._part(source, target)

    async def _part(self, source: Socket, target: Socket) -> None:
        if self.is_over:
            self.ended_well = True
            await target.close(NORMAL)
            await source.close(NORMAL)
        elif source.close_code == NORMAL and isinstance(source, PlainSocket):
            return  # it says no more, but it listens
        elif source.close_code == LOST:
            await target.hang_up()
        else:
            self.ended_well = source.close_code == NORMAL
            await target.close(source.close_code, source.close_reason)

    async def _plain(self, source: PlainSocket, target: PlainSocket) -> None:
        def pour(block: memoryview) -> bool:
            target.out.put(block[HEAD_BYTES:])
            return True

        await source.line.pour(pour, target.out)
        await target.out.flushed()
        if source.line.ended_well:
            source.close_code = NORMAL
            target.out.end()
            self.one_end()

    async def _wrap(self, source: PlainSocket, target: RawSocket) -> None:
        def pour(block: memoryview) -> bool:
            target.line.put(wrapped(block))
            return True

        await source.line.pour(pour, target.line)
        await target.line.flushed()
        if source.line.ended_well:
            source.close_code = NORMAL
            await target.line.write(record(BYTES, END))
            self.one_end()

    async def _unwrap(self, source: RawSocket, target: PlainSocket) -> None:
        def end() -> None:
            target.out.end()
            self.one_end()

        content = Unwrapping(target.out.put, end)
        await source.line.pour(lambda block: content.take(block[HEAD_BYTES:]) and not self.is_over, target.out)
        if content.is_wrong:
            return await source.refuse()
        if content.closed is not None:
            source.understand(content.closed)
        await target.out.flushed()

    async def _by_messages(self, source: Socket, target: Socket) -> None:
        while (message := await source.receive()) is not None:
            await target.send(message)
            if self.is_stream and not message:
                self.one_end()
                if self.is_over or isinstance(source, PlainSocket):
                    return


async def _as_it_is(source: RawSocket, target: RawSocket) -> None:
    """The record that closes goes through as all others."""

    def pour(block: memoryview) -> bool:
        target.borders.pass_by(block[HEAD_BYTES:])
        target.line.put(block[HEAD_BYTES:])
        return True

    await source.line.pour(pour, target.line)
    await target.line.flushed()
