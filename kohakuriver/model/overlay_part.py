"""What host and runner tell each other about the runner's part of the overlay."""

import hashlib
from dataclasses import dataclass

from kohakuriver.model import codec
from kohakuriver.model.fields import Bounds, declare

IPV4 = Bounds(length=15, pattern=r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])")
IPV4_OR_NONE = Bounds(length=15, pattern=rf"({IPV4.pattern})?")
NETWORK = Bounds(length=18, pattern=rf"({IPV4.pattern}/([12]?[0-9]|3[0-2]))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayWish:
    """A runner that would join; `subnet` is what it had before, so that a host that lost its memory gives it again."""

    address: str = declare("Its IPv4 address on the way to the host.", bounds=IPV4)
    subnet: str = declare("The subnet it had; empty: none.", default="", bounds=NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPeer:
    """Another runner of a mesh: its subnet, and the machine that it is on."""

    subnet: str = declare("Its subnet.", bounds=NETWORK)
    address: str = declare("Its machine's address.", bounds=IPV4)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPart:
    """All that a runner needs to make its part; `is_hosts` when it is on the host's own machine and needs no tunnel.

    `host_machine` is the host's address outside the overlay, `mesh_vni` 0 without a mesh.
    """

    number: int = declare("Which runner it is.", bounds=Bounds(least=1))
    network: str = declare("The whole overlay.", bounds=NETWORK)
    subnet: str = declare("The runner's part.", bounds=NETWORK)
    host_machine: str = declare("Where the host is.", bounds=IPV4_OR_NONE)
    is_hosts: bool = False
    vni: int = declare("VXLAN id towards the host.", bounds=Bounds(least=1, most=2**24 - 1))
    mesh_vni: int = declare("VXLAN id between runners.", default=0, bounds=Bounds(least=0, most=2**24 - 1))
    port: int = declare("UDP port of VXLAN.", bounds=Bounds(least=1, most=65535))
    mtu: int = declare("MTU inside.", bounds=Bounds(least=1280, most=65000))
    is_isolated: bool = declare("Whether containers of different owners are kept apart.", default=False)
    peers: list[OverlayPeer] = declare("The others, in a mesh.", default=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayNews:
    """How a runner's part is: which one it has (`digest_of` it), whether containers can use it, what was healed.

    `address` is where its machine is now, for it may have moved.
    """

    address: str = declare("Its IPv4 address on the way to the host.", default="", bounds=IPV4_OR_NONE)
    has: str = declare("Digest of its part.", default="", bounds=Bounds(length=64))
    ready: bool = False
    trouble: str = declare("Why it is not ready.", default="", bounds=Bounds(length=1000))
    healed: int = declare("Things put right since it started.", default=0, bounds=Bounds(least=0))


def digest_of(part: OverlayPart | None) -> str:
    """By what a part is known to be the same."""
    return hashlib.sha256(codec.encode_text(part).encode()).hexdigest() if part else ""
