"""Many connections through one forward of a real cluster: all bytes of all of them, and nothing left of any."""

import asyncio
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import PROCESS_KIND, on
from tests.cluster.test_sockets import forwarding, retried
from tests.cluster.test_ssh_ways import descriptors, resident
from tests.ports import free_port

ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(262144):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size = True, 128
Server(("127.0.0.1", {port}), Echo).serve_forever()
"""
CYCLES, WARMING_CYCLES = 1000, 100
CONNECTIONS, EACH_WAY_BYTES, STEP_BYTES = 64, 8_000_000, 251  # a step is no power of two: no two send the same
MOST_GROWN_BYTES = 15_000_000


def echoed(address: tuple[str, int], data: bytes) -> bytes:
    """What comes back of a connection that is then closed."""
    with closing(socket.create_connection(address, timeout=30)) as peer:
        peer.sendall(data)
        return peer.recv(len(data), socket.MSG_WAITALL)


@on(PROCESS_KIND)
@pytest.mark.slow
def test_a_thousand_connections_that_came_and_went_left_nothing(cluster: Cluster, pyz: Path, tmp_path: Path) -> None:
    port = free_port()
    task_id = cluster.begin(sys.executable, "-c", ECHO.format(port=port), targets=["beta"])
    cluster.wait_for(task_id, "running")
    members = (cluster.host, cluster.runners["beta"])
    with forwarding(cluster, pyz, tmp_path, task_id, f"0:{port}") as [address]:
        assert retried(lambda: echoed(address, b"up"), b"up") == b"up"
        for _ in range(WARMING_CYCLES):
            assert echoed(address, b"hello") == b"hello"
        open_before, before = [descriptors(each) for each in members], [resident(each) for each in members]
        for number in range(CYCLES):
            assert echoed(address, b"%d" % number) == b"%d" % number
        cluster.until(lambda: all(descriptors(each) <= was + 3 for each, was in zip(members, open_before, strict=True)))
        grown = [resident(each) - was for each, was in zip(members, before, strict=True)]
        assert max(grown) < MOST_GROWN_BYTES, grown


@on(PROCESS_KIND)
@pytest.mark.slow
def test_sixty_four_connections_at_once_get_a_gigabyte_back_byte_for_byte(
    cluster: Cluster, pyz: Path, tmp_path: Path
) -> None:
    port = free_port()
    task_id = cluster.begin(sys.executable, "-c", ECHO.format(port=port), targets=["beta"])
    cluster.wait_for(task_id, "running")
    pattern = memoryview(bytes((n * n + n // 256) % 256 for n in range(65536)) * (EACH_WAY_BYTES // 65536 + 2))
    with forwarding(cluster, pyz, tmp_path, task_id, f"0:{port}") as [address]:
        assert retried(lambda: echoed(address, b"up"), b"up") == b"up"

        async def all_of_them() -> list[int]:
            parts = (pattern[n * STEP_BYTES : n * STEP_BYTES + EACH_WAY_BYTES] for n in range(CONNECTIONS))
            return await asyncio.gather(*(there_and_back(address, part) for part in parts))

        assert asyncio.run(all_of_them()) == [EACH_WAY_BYTES] * CONNECTIONS


async def there_and_back(address: tuple[str, int], data: memoryview) -> int:
    """How many bytes came back, each of which was compared; both directions go on at once, and end one after the other."""
    loop, heard = asyncio.get_running_loop(), 0
    with socket.socket() as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, address)

        async def speak() -> None:
            await loop.sock_sendall(peer, data)
            peer.shutdown(socket.SHUT_WR)

        speaking = asyncio.ensure_future(speak())
        while part := await loop.sock_recv(peer, 256 * 1024):
            assert data[heard : heard + len(part)] == part
            heard += len(part)
        await speaking
    return heard
