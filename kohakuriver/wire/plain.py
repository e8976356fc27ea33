"""A plain connection as a socket: bytes as they come, empty bytes end a direction. Standard library only."""

from collections.abc import Sequence

from kohakuriver.wire.line import Line
from kohakuriver.wire.sockets import LOST, NORMAL, Message, Socket


class PlainSocket(Socket):
    """One end of a stream; `out` is where it speaks, if that is not where it hears (two pipes)."""

    def __init__(self, line: Line, out: Line | None = None) -> None:
        self.offers: Sequence[str] = ()
        self.protocol = ""
        self.close_code, self.close_reason = LOST, ""
        self.line, self.out = line, out or line
        self._is_over = False

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        if self._is_over:
            return None
        data = await self.line.some()
        self._is_over = not data
        if not data and not self.line.ended_well:
            return None
        self.close_code = LOST if data else NORMAL
        return data

    async def send(self, message: Message) -> None:
        if message:
            await self.out.write(message.encode() if isinstance(message, str) else message)
        else:
            self.out.end()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if code != NORMAL:
            return await self.hang_up()
        for line in {self.out, self.line}:
            await line.close()

    async def hang_up(self) -> None:
        for line in {self.out, self.line}:
            line.reset()
