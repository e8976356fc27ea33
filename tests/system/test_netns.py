"""Sockets in the network of another process, which has no way out and no helper."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kohakuriver.model.errors import NotFound
from kohakuriver.system.netns import connect

SERVER = """
import socket, sys, threading
tcp = socket.create_server(("127.0.0.1", 4711))
six = socket.create_server(("::1", 4712), family=socket.AF_INET6)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 4713))
def echo(listener):
    while True:
        peer, _ = listener.accept(); peer.sendall(b"tcp:" + peer.recv(100)); peer.close()
for listener in (tcp, six):
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(100); udp.sendto(b"udp:" + data, peer)
"""


@pytest.fixture
def isolated() -> Iterator[int]:
    """The pid of a server in a network of its own, in which there is only loopback."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.path.exists("/usr/bin/busybox"):
        pytest.skip("needs root, unshare and busybox")
    up = "/usr/bin/busybox ip link set lo up && exec " + sys.executable + ' -c "$0"'
    child = subprocess.Popen(["unshare", "--net", "sh", "-c", up, SERVER], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def test_ports_that_only_its_own_loopback_has_are_reached(isolated: int) -> None:
    async def ask(port: int, kind: socket.SocketKind) -> bytes:
        made = await connect(isolated, port, kind, 5.0)
        with made:
            await asyncio.get_running_loop().sock_sendall(made, b"hello")
            return await asyncio.get_running_loop().sock_recv(made, 100)

    assert asyncio.run(ask(4711, socket.SOCK_STREAM)) == b"tcp:hello"
    assert asyncio.run(ask(4712, socket.SOCK_STREAM)) == b"tcp:hello"
    assert asyncio.run(ask(4713, socket.SOCK_DGRAM)) == b"udp:hello"
    with pytest.raises(NotFound, match="port 4711"):  # it is not ours
        asyncio.run(connect(os.getpid(), 4711, socket.SOCK_STREAM, 5.0))


def test_a_port_where_nobody_listens_and_a_process_that_is_gone_are_not_found(isolated: int) -> None:
    with pytest.raises(NotFound, match="port 4799: Connection refused"):
        asyncio.run(connect(isolated, 4799, socket.SOCK_STREAM, 5.0))
    with pytest.raises(NotFound, match="has ended"):
        asyncio.run(connect(2**22, 80, socket.SOCK_STREAM, 5.0))


def test_our_own_threads_stay_where_they_are(isolated: int) -> None:
    async def many() -> None:
        for _ in range(20):
            (await connect(isolated, 4711, socket.SOCK_STREAM, 5.0)).close()

    before, descriptors = os.readlink("/proc/self/ns/net"), len(os.listdir("/proc/self/fd"))
    asyncio.run(many())
    namespaces = {os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")}
    assert namespaces == {before} and len(os.listdir("/proc/self/fd")) <= descriptors
