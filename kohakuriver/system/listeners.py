"""Where somebody listens in the network of a process: the kernel's own tables of its sockets (proc_pid_net(5))."""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from kohakuriver.model.errors import NotFound

Place = tuple[socket.AddressFamily, str]  # family and address
LOOPBACK: tuple[Place, ...] = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_TABLES = {socket.SOCK_STREAM: ("tcp", "tcp6"), socket.SOCK_DGRAM: ("udp", "udp6")}
_WAITING = {socket.SOCK_STREAM: "0A", socket.SOCK_DGRAM: "07"}  # LISTEN; of UDP: connected to nobody


def places_of(pid: int, port: int, kind: socket.SocketKind) -> list[Place]:
    """Addresses at which a port of the process's network can be reached, loopback first; raises NotFound when it is gone."""
    found: list[Place] = []
    for name in _TABLES[kind]:
        try:
            table = Path(f"/proc/{pid}/net/{name}").read_text()
        except FileNotFoundError:
            continue  # no IPv6 here
        except OSError:
            raise NotFound("the workload has ended") from None
        found += places_in(table, port, _WAITING[kind])
    return sorted(set(found), key=lambda place: (place not in LOOPBACK, place))


def places_in(table: str, port: int, state: str) -> Iterator[Place]:
    """Where sockets of a table wait on that port; who waits everywhere is at loopback, of whichever family there is."""
    for line in table.splitlines()[1:]:
        _, local, _, found, *_ = line.split()
        address, _, number = local.partition(":")
        if int(number, 16) == port and found == state:
            there = _address(address)
            if there.is_unspecified:
                yield from LOOPBACK
            elif not there.is_link_local:  # which would need to be told the interface
                yield (socket.AF_INET if there.version == 4 else socket.AF_INET6), str(there)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Words of 32 bits in the byte order of the machine, in hex."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
