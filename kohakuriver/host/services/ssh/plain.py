"""A plain connection as a socket: bytes as they come, empty bytes end a direction."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from kohakuriver.wire.sockets import LOST, NORMAL, Message, Socket

CHUNK_BYTES = 256 * 1024


class PlainSocket(Socket):
    """One end of a stream connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.offers: Sequence[str] = ()
        self.protocol = ""
        self.close_code, self.close_reason = LOST, ""
        self._reader, self._writer, self._over = reader, writer, False

    async def open(self, protocol: str = "") -> None:
        """It is open."""

    async def receive(self) -> Message | None:
        if self._over:
            return None
        try:
            data = await self._reader.read(CHUNK_BYTES)
        except OSError:
            self._over = True
            return None
        if not data:
            self._over, self.close_code = True, NORMAL
        return data

    async def send(self, message: Message) -> None:
        data = message.encode() if isinstance(message, str) else message
        try:
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._writer.can_write_eof():
                self._writer.write_eof()
        except OSError as broken:
            raise ConnectionResetError(str(broken)) from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
