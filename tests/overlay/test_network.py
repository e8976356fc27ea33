"""Containers on different machines reach each other by address, through the host or directly, whatever is killed or cut."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.overlay.cluster import Container, OverlayCluster

pytestmark = pytest.mark.docker
CHUNK_BYTES, LAST = 1 << 14, b"and that was all"


@pytest.fixture(scope="module")
def pair(network: OverlayCluster) -> tuple[Container, Container]:
    """A container on each node."""
    return network.place("n1"), network.place("n2")


@pytest.fixture(autouse=True)
def _whole(network: OverlayCluster) -> Iterator[None]:
    yield
    for part in (network.host, *network.runners.values()):
        if not part.alive:
            part.start()
    network.until_ready()


@contextmanager
def no_echo_lost(one: Container, two: Container) -> Iterator[None]:
    """Every echo that is asked for while the block runs comes back; some wait two seconds, none is sent twice."""
    stop, lost, sent = threading.Event(), list[str](), [0]

    def ask() -> None:
        while not stop.is_set():
            code, said = one.run(f"busybox ping -c 5 -i 0.1 -W 2 {two.address}")
            sent[0] += 5
            if code or " 0% packet loss" not in said:
                lost.append(said)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert sent[0] and not lost, lost


@contextmanager
def no_byte_lost(one: Container, two: Container) -> Iterator[None]:
    """What goes over one connection from before the block until after it arrives, every byte, and goes on to the end."""
    stop, sent, got = threading.Event(), hashlib.sha256(), hashlib.sha256()
    with two.listening() as listener, one.plain_socket() as speaker:
        speaker.connect(listener.getsockname())
        hearer, _ = listener.accept()
        hearer.settimeout(60)

        def speak() -> None:
            while not stop.wait(0.002):
                chunk = os.urandom(CHUNK_BYTES)
                sent.update(chunk)
                speaker.sendall(chunk)
            speaker.sendall(LAST)
            speaker.shutdown(socket.SHUT_WR)

        def hear() -> None:
            end = b""
            while chunk := hearer.recv(1 << 20):
                whole = end + chunk
                end = whole[-len(LAST) :]
                got.update(whole[: -len(LAST)])
            ended.append(end)

        ended: list[bytes] = []
        threads = [threading.Thread(target=work) for work in (speak, hear)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            hearer.close()
    assert ended == [LAST] and got.digest() == sent.digest()


def test_containers_reach_each_other_and_know_their_address(pair: tuple[Container, Container]) -> None:
    one, two = pair
    assert one.reaches(two.address) and two.reaches(one.address)
    assert one.address in one.run("ip addr")[1]


def test_traffic_goes_through_the_host_or_directly_as_the_topology_says(
    network: OverlayCluster, topology: str, pair: tuple[Container, Container]
) -> None:
    one, two = pair
    said = one.run(f"busybox traceroute -n -w 2 -q 1 -m 5 {two.address}")[1]
    hops = [line.split()[1] for line in said.splitlines()[1:]]
    subnets = {r["hostname"]: r for r in network.overlay()["runners"]}
    way = {"hub": subnets["n1"]["host_address"], "mesh": subnets["n2"]["gateway"]}
    assert hops[-2:] == [way[topology], two.address], said


def test_programs_killed_and_started_in_any_order_lose_no_packet_and_no_connection(
    network: OverlayCluster, pair: tuple[Container, Container]
) -> None:
    parts = [network.host, network.runners["n1"], network.runners["n2"]]
    with no_echo_lost(*pair), no_byte_lost(*pair), no_byte_lost(*reversed(pair)):
        for part in parts:
            part.kill()
        for part in reversed(parts):
            part.start()
        network.until(lambda: network.online() == {"n1", "n2"})
        network.until_ready()
        network.host.stop()
        network.host.start()
        network.until_ready()


def test_vxlan_comes_from_members_only(network: OverlayCluster) -> None:
    for machine in network.machines.values():
        rules = machine.run("iptables -S | grep -e 'INPUT.*--dport 4789'").splitlines()
        assert rules[-1].endswith("-j DROP") and all(rule.endswith("-j ACCEPT") for rule in rules[:-2])


def test_containers_come_out_under_their_nodes_address(
    network: OverlayCluster, pair: tuple[Container, Container]
) -> None:
    machine = network.machines["host"]
    with machine.listening() as listener:
        port = listener.getsockname()[1]
        assert pair[0].run(f"busybox nc -w 5 {machine.address} {port} </dev/null >/dev/null 2>&1 &")[0] == 0
        connection, (address, _) = listener.accept()
        connection.close()
    assert address == network.machines["n1"].address


def test_a_stopped_host_stops_no_direct_traffic(network: OverlayCluster, pair: tuple[Container, Container]) -> None:
    network.host.kill()
    assert pair[0].reaches(pair[1].address)
