"""A container, even one that may do everything in its network, cannot send as another, nor speak VXLAN with machines."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest

from kohakuriver.model.overlay import mac_of
from kohakuriver.system.netns import in_network_of
from tests.overlay.cluster import Container, OverlayCluster, wait_for

pytestmark = pytest.mark.docker
IPV4, ARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
EVERYTHING, EXPERIMENT = 3, 253  # ETH_P_ALL of linux/if_ether.h, and the protocol for experiments of RFC 3692
HONEST, FORGED = b"I am who I am", b"I am somebody else"


def mac(address: str) -> bytes:
    return bytes.fromhex(mac_of(IPv4Address(address)).replace(":", ""))


def frame(to: bytes, sender: bytes, kind: int, body: bytes) -> bytes:
    return to + sender + struct.pack("!H", kind) + body


def packet(sender: str, to: str, text: bytes) -> bytes:
    """IPv4 (RFC 791)."""
    parts = (0x45, 0, 20 + len(text), 0, 0, 64, EXPERIMENT, 0, socket.inet_aton(sender), socket.inet_aton(to))
    head = struct.pack("!BBHHHBBH4s4s", *parts)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:] + text


def claim(sender: str, hardware: bytes, text: bytes) -> bytes:
    """An ARP answer (RFC 826) that says where an address is; what comes behind it is no part of it."""
    ours = socket.inet_aton(sender)
    return struct.pack("!HHBBH6s4s6s4s", 1, IPV4, 6, 4, 2, hardware, ours, b"\xff" * 6, ours) + text


def forgeries(thief: str, other: str, victim: str) -> list[bytes]:
    """Frames from one container to another on its node, under a third one's address."""
    to, own = mac(victim), mac(thief)
    wrong, right = packet(other, victim, FORGED), packet(thief, victim, FORGED)
    return [
        frame(to, own, IPV4, wrong),
        frame(to, mac(other), IPV4, wrong),
        frame(to, mac(other), IPV4, right),
        frame(b"\xff" * 6, own, ARP, claim(other, own, FORGED)),
        frame(b"\xff" * 6, mac(other), ARP, claim(thief, own, FORGED)),
        frame(to, own, VLAN, struct.pack("!HH", 7, IPV4) + wrong),
        frame(to, own, IPV6, bytes(40) + FORGED),
    ]


@contextmanager
def wire(container: Container) -> Iterator[socket.socket]:
    """The network of a container as it is on the wire."""
    with in_network_of(container.pid, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as made:
        made.bind(("eth0", EVERYTHING))
        made.settimeout(20)
        yield made


def heard_until_honest(listener: socket.socket) -> list[bytes]:
    """What arrives before the honest one."""
    found = []
    while HONEST not in (seen := listener.recv(2000)):
        found.append(seen)
    return found


def until_known(network: OverlayCluster, container: Container) -> None:
    """Return when the port of a container on n1 is known."""
    rule = rf"nft list table bridge KOHAKU-NODE | grep -c 'iifname \"veth.* {container.address} '"
    wait_for(lambda: network.machines["n1"].run(rule).strip() == "2", network.logs)


def test_nothing_of_what_a_container_forges_arrives(network: OverlayCluster) -> None:
    thief, other, victim = (network.place("n1") for _ in range(3))
    assert thief.address in network.machines["n1"].run("nft list table bridge KOHAKU-NODE"), "let in from the start"
    until_known(network, thief)
    with wire(thief) as mouth, wire(victim) as ear:
        for forged in forgeries(thief.address, other.address, victim.address):
            mouth.send(forged)
        honest = packet(thief.address, victim.address, HONEST)
        mouth.send(frame(mac(victim.address), mac(thief.address), IPV4, honest))
        assert not [seen for seen in heard_until_honest(ear) if FORGED in seen]
    assert thief.reaches(victim.address) and other.reaches(victim.address)


def test_a_container_cannot_put_packets_into_the_tunnels(network: OverlayCluster, topology: str) -> None:
    one, other, two = network.place("n1"), network.place("n1"), network.place("n2")
    parts = {r["hostname"]: r for r in network.overlay()["runners"]}
    inner = packet(other.address, two.address, FORGED)
    ways = [
        ("host", parts["n1"]["host_address"], 101),
        ("host", parts["n2"]["host_address"], 102),
        ("n2", parts["n2"]["gateway"], 100),
        ("n2", two.address, 102),
    ]
    with ExitStack() as stack:
        ear, mouth = stack.enter_context(wire(two)), stack.enter_context(wire(one))
        sender = stack.enter_context(in_network_of(one.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        for machine, router, vni in ways:
            header = struct.pack("!II", 1 << 27, vni << 8)  # RFC 7348
            forged = header + frame(mac(router), mac(parts["n1"]["gateway"]), IPV4, inner)
            sender.sendto(forged, (network.machines[machine].address, 4789))
        honest = packet(one.address, two.address, HONEST)
        mouth.send(frame(mac(parts["n1"]["gateway"]), mac(one.address), IPV4, honest))
        assert not [seen for seen in heard_until_honest(ear) if FORGED in seen]
