"""Sockets in the network of another process, which has no way out and no helper."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from kohakuriver.model.errors import NotFound
from kohakuriver.system import netns
from kohakuriver.system.listeners import LOOPBACK, places_in
from kohakuriver.system.netns import connect, connect_anywhere

SERVER = """
import socket, sys, threading
tcp = socket.create_server(("127.0.0.1", 4711))
six = socket.create_server(("::1", 4712), family=socket.AF_INET6)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 4713))
own = socket.create_server(("10.99.0.7", 4714))
own_six = socket.create_server(("fd99::7", 4715), family=socket.AF_INET6)
own_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own_udp.bind(("10.99.0.7", 4716))
def echo(listener):
    while True:
        peer, _ = listener.accept(); peer.sendall(b"tcp:" + peer.recv(100)); peer.close()
for listener in (tcp, six, own, own_six):
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
print("ready", flush=True)
def answer(udp):
    while True:
        data, peer = udp.recvfrom(100); udp.sendto(b"udp:" + data, peer)
threading.Thread(target=answer, args=(own_udp,), daemon=True).start()
answer(udp)
"""


@pytest.fixture
def isolated() -> Iterator[int]:
    """The pid of a server in a network of its own, in which there is only loopback."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.path.exists("/usr/bin/busybox"):
        pytest.skip("needs root, unshare and busybox")
    ip = "/usr/bin/busybox ip"
    up = (
        f"{ip} link set lo up && {ip} addr add 10.99.0.7/32 dev lo && {ip} addr add fd99::7/128 dev lo && exec "
        + sys.executable
        + ' -c "$0"'
    )
    child = subprocess.Popen(["unshare", "--net", "sh", "-c", up, SERVER], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


async def ask(pid: int, port: int, kind: socket.SocketKind) -> bytes:
    """What a server in there answers."""
    with await connect_anywhere(pid, port, kind, 5.0) as made:
        await asyncio.get_running_loop().sock_sendall(made, b"hello")
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(made, 100)


@pytest.mark.parametrize("port", [4711, 4712, 4714, 4715])
def test_a_server_is_reached_at_whatever_address_of_its_own_it_listens(isolated: int, port: int) -> None:
    assert asyncio.run(ask(isolated, port, socket.SOCK_STREAM)) == b"tcp:hello"


@pytest.mark.parametrize("port", [4713, 4716])
def test_so_are_those_who_take_datagrams(isolated: int, port: int) -> None:
    assert asyncio.run(ask(isolated, port, socket.SOCK_DGRAM)) == b"udp:hello"


def test_the_ports_of_one_network_are_not_those_of_another(isolated: int) -> None:
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


TABLE = """\
  sl  local_address rem_address   st
   0: 00000000:1F90 00000000:0000 0A
   1: 0700630A:1F91 00000000:0000 0A
   2: 0100007F:1F92 0100007F:A0A0 01
"""


def test_only_who_listens_counts() -> None:
    assert tuple(places_in(TABLE, 0x1F90, "0A")) == LOOPBACK
    assert list(places_in(TABLE, 0x1F91, "0A")) == [(socket.AF_INET, "10.99.0.7")]
    assert list(places_in(TABLE, 0x1F92, "0A")) == []


def test_on_this_machine_only_loopback_is_tried() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server, pytest.raises(NotFound, match="refused"):
        asyncio.run(connect_anywhere(os.getpid(), server.getsockname()[1], socket.SOCK_STREAM, 5.0))


def test_a_socket_that_nobody_waits_for_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, begun, goes_on = socket.socket(), threading.Event(), threading.Event()

    def slowly(pid: int, make: object) -> socket.socket:
        begun.set()
        assert goes_on.wait(60)
        return made

    async def give_up() -> None:
        connecting = asyncio.create_task(netns.connect(os.getpid(), 1, socket.SOCK_STREAM, 1.0))
        await asyncio.to_thread(begun.wait)
        connecting.cancel()
        await asyncio.wait([connecting])
        goes_on.set()
        async with asyncio.timeout(60):
            while made.fileno() >= 0:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(netns, "in_network_of", slowly)
    asyncio.run(give_up())
