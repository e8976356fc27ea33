"""Lines and what a relay makes of them: every byte, both ends, slow readers, and breaks that look like breaks."""

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.wire import line, records
from kohakuriver.wire.line import LARGEST_BLOCK_BYTES, SMALLEST_BLOCK_BYTES, Line, answers, connected, fitting
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.records import BYTES, CLOSE, NOTHING, TEXT, Unwrapping, record
from kohakuriver.wire.records import closing as goodbye
from kohakuriver.wire.relay import relay


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection over loopback."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


class Ends:
    """Plain sockets at both ends of two relays with records between them, as a forward has them."""

    def __init__(self) -> None:
        (self.left, left), (self.right, right) = tcp_pair(), tcp_pair()
        self._pairs = left, right, *tcp_pair(), *tcp_pair()

    async def relay(self) -> tuple[bool, bool, bool]:
        """Serve until it is over; whether each of the three hops ended well."""
        left, right, near, host_near, host_far, far = [await connected(each) for each in self._pairs]
        return await asyncio.gather(
            relay(RawSocket(near), PlainSocket(left)),
            relay(RawSocket(host_near), RawSocket(host_far)),
            relay(RawSocket(far), PlainSocket(right)),
        )


def play(script: Callable[[Ends, "asyncio.Future[tuple[bool, bool, bool]]"], Awaitable[None]]) -> None:
    async def body() -> None:
        ends = Ends()
        with ends.left, ends.right:
            relaying = asyncio.ensure_future(ends.relay())
            try:
                async with asyncio.timeout(60):
                    await script(ends, relaying)
            finally:
                relaying.cancel()
                await asyncio.gather(relaying, return_exceptions=True)

    asyncio.run(body())


def speak(sock: socket.socket, parts: int) -> str:
    """Send random parts of all sizes and end; gives the digest."""
    digest = hashlib.sha256()
    for number in range(parts):
        part = os.urandom(1 << number % 20)
        digest.update(part)
        sock.sendall(part)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def hear(sock: socket.socket) -> str:
    """The digest of all that comes, to the end."""
    digest = hashlib.sha256()
    while part := sock.recv(100_000):
        digest.update(part)
    return digest.hexdigest()


def test_every_byte_arrives_in_both_directions_at_once_and_both_end_well() -> None:
    async def script(ends: Ends, relaying: "asyncio.Future[tuple[bool, bool, bool]]") -> None:
        pair = ends.left, ends.right
        said, back, *heard = await asyncio.gather(
            *(asyncio.to_thread(speak, each, 40) for each in pair), *(asyncio.to_thread(hear, each) for each in pair)
        )
        assert heard == [back, said]
        assert list(await relaying)[::2] == [True, True]

    play(script)


def test_one_direction_may_end_long_before_the_other() -> None:
    async def script(ends: Ends, relaying: "asyncio.Future[tuple[bool, bool, bool]]") -> None:
        ends.left.sendall(b"question")
        ends.left.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(hear, ends.right) == hashlib.sha256(b"question").hexdigest()
        said, heard = await asyncio.gather(asyncio.to_thread(speak, ends.right, 30), asyncio.to_thread(hear, ends.left))
        assert said == heard
        await relaying

    play(script)


def test_what_broke_looks_broken_at_the_other_end() -> None:
    async def script(ends: Ends, relaying: "asyncio.Future[tuple[bool, bool, bool]]") -> None:
        ends.left.sendall(b"half of")
        assert await asyncio.to_thread(ends.right.recv, 100) == b"half of"
        ends.left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends.left.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(ends.right.recv, 100)
        assert not any(await relaying)

    play(script)


def test_who_does_not_read_holds_up_the_writer_and_loses_nothing() -> None:
    async def script(ends: Ends, relaying: "asyncio.Future[tuple[bool, bool, bool]]") -> None:
        ends.left.setblocking(False)
        data, sent, quiet = bytes(range(256)) * 4096, 0, 0
        while quiet < 20:
            try:
                sent += ends.left.send(data[sent % 256 :])
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await asyncio.sleep(0.01)
        assert sent < 100_000_000, "the kernel's buffers and four blocks"
        ends.left.setblocking(True)
        ends.left.shutdown(socket.SHUT_WR)
        heard = 0
        while part := await asyncio.to_thread(ends.right.recv, 1 << 20):
            assert part == (data + data)[heard % 256 : heard % 256 + len(part)]
            heard += len(part)
        assert heard == sent

    play(script)


def test_a_reader_that_takes_a_rest_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(line, "SILENT_MS", 50)
    looks = 0

    def counted(said: bytes) -> bool:
        nonlocal looks
        looks += 1
        return answers(said)

    monkeypatch.setattr(line, "answers", counted)

    async def body() -> None:
        ours, theirs = tcp_pair()
        with theirs:
            speaker = await connected(ours)
            writing = asyncio.ensure_future(speaker.write(bytes(30_000_000)))
            async with asyncio.timeout(30):
                while looks < 40:
                    await asyncio.sleep(0.01)
            assert not writing.done() and not speaker.is_lost
            writing.cancel()
            speaker.reset()
            await speaker.close()

    asyncio.run(body())


def tcp_info(probes: int, unacked: int, last_ack_ms: int) -> bytes:
    return struct.pack("=3xB4x13I", probes, *(0,) * 4, unacked, *(0,) * 7, last_ack_ms)


@pytest.mark.parametrize(
    ("probes", "unacked", "last_ack_ms", "alive"),
    [
        (0, 0, 900_000, True),
        (0, 3, 29_000, True),
        (0, 3, 31_000, False),
        (1, 0, 90_000, True),
        (9, 0, 90_000, False),
        (9, 0, 2_000, True),
    ],
)
def test_dead_is_who_acknowledges_nothing_that_he_was_sent(
    probes: int, unacked: int, last_ack_ms: int, alive: bool
) -> None:
    assert answers(tcp_info(probes, unacked, last_ack_ms)) is alive


def test_blocks_grow_with_what_comes_and_shrink_again() -> None:
    size = SMALLEST_BLOCK_BYTES
    for _ in range(20):
        size = fitting(size, size)
    assert size == LARGEST_BLOCK_BYTES == fitting(size, 100_000)
    for _ in range(20):
        size = fitting(size, 1)
    assert size == SMALLEST_BLOCK_BYTES


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 30))
def test_records_in_any_cuts_give_what_was_put_in(bodies: list[bytes], cut: int) -> None:
    sent = b"".join([record(BYTES, body) for body in bodies] + [record(BYTES, b""), goodbye(4007, "é")])
    given_on, ends = bytearray(), []
    content = Unwrapping(given_on.extend, lambda: ends.append(len(given_on)))
    wants = [content.take(memoryview(sent[at : at + cut])) for at in range(0, len(sent), cut)]
    assert (bytes(given_on), ends) == (b"".join(bodies), [len(b"".join(bodies))])
    assert wants[-1] is False and all(wants[:-1]) and content.closed == (4007, "é")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x04\0\0\0\0",
        record(NOTHING, b"something"),
        struct.pack(">BI", TEXT, 1 << 21),
        record(CLOSE, b""),
        record(CLOSE, b"\1"),
        record(CLOSE, b"\0\0\xff"),
        record(BYTES, b"") + record(BYTES, b"more"),
    ],
)
def test_what_is_no_record_ends_it(garbage: bytes) -> None:
    content = Unwrapping(lambda data: None, lambda: None)
    assert not content.take(memoryview(garbage)) and content.is_wrong and content.closed is None


@given(st.binary(max_size=60))
def test_garbage_raises_nothing(garbage: bytes) -> None:
    Unwrapping(lambda data: None, lambda: None).take(memoryview(garbage))


def test_only_a_busy_stream_takes_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "REST_SECONDS", 3600.0)

    async def body() -> None:
        (ours, theirs), (out, beyond) = tcp_pair(), tcp_pair()
        with theirs, beyond:
            source, target = await connected(ours), await connected(out)
            sizes, reads = [1, 4096, 7], []

            def pour(block: memoryview) -> bool:
                target.put(block[line.HEAD_BYTES :])
                reads.append(len(block) - line.HEAD_BYTES)
                return True

            pouring = asyncio.ensure_future(source.pour(pour, target))
            for number, size in enumerate(sizes):
                theirs.sendall(bytes(size))
                async with asyncio.timeout(10):
                    while len(reads) <= number:
                        await asyncio.sleep(0)
                assert source.transport.is_reading() is (size < 4096)
                source._rested()  # as if the time had passed
            assert reads == sizes
            theirs.shutdown(socket.SHUT_WR)
            await pouring
            for each in (source, target):
                await each.close()

    asyncio.run(body())


def test_what_was_heard_before_the_pouring_began_is_poured_too() -> None:
    async def body() -> None:
        (ours, theirs), (out, beyond) = tcp_pair(), tcp_pair()
        with theirs, beyond:
            source, target = await connected(ours), await connected(out)
            theirs.sendall(b"headbody")
            assert await source.exactly(4) == b"head"
            theirs.sendall(b"more")
            theirs.shutdown(socket.SHUT_WR)

            def pour(block: memoryview) -> bool:
                target.put(records.wrapped(block)[line.HEAD_BYTES :])
                return True

            await source.pour(pour, target)
            target.end()
            heard = b""
            while part := await asyncio.to_thread(beyond.recv, 100):
                heard += part
            assert heard == b"bodymore" and await source.some() == b""
            for each in (source, target):
                await each.close()

    asyncio.run(body())


def test_a_line_says_what_it_was_made_for() -> None:
    async def body() -> None:
        made: list[Line] = []
        server = await asyncio.get_running_loop().create_server(lambda: Line(made.append), "127.0.0.1", 0)
        _, ours = await asyncio.get_running_loop().create_connection(Line, *server.sockets[0].getsockname())
        async with asyncio.timeout(10):
            while not made:
                await asyncio.sleep(0)
            ours.put(b"one\r\n\r\ntwo")
            assert await made[0].through(b"\r\n\r\n") == b"one\r\n\r\n" and await made[0].some() == b"two"
            with pytest.raises(EOFError):
                ours.end()
                await made[0].exactly(1)
            for each in (ours, *made):
                await each.close()
        server.close()
        await server.wait_closed()

    asyncio.run(body())
