"""What forwards are measured against: `source PORT` sends and echoes, `relay PORT TO` is a plain asyncio TCP relay."""

import asyncio
import socket
import sys

BLOCK = bytes(256 * 1024)


async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer `N\\n` with so many bytes (0: whatever else comes comes back)."""
    count = int(await reader.readline())
    while count > 0:
        writer.write(BLOCK[: min(count, len(BLOCK))])
        count -= len(BLOCK)
        await writer.drain()
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: int) -> None:
    """Join it with a connection to another port."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)

    async def hand_on(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        while data := await one.read(65536):
            other.write(data)
            await other.drain()
        other.close()

    await asyncio.gather(hand_on(reader, far_writer), hand_on(far_reader, writer), return_exceptions=True)


async def serve(words: list[str]) -> None:
    """Listen until killed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await (source(reader, writer) if words[0] == "source" else relay(reader, writer, int(words[2])))

    server = await asyncio.start_server(connected, "127.0.0.1", int(words[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
