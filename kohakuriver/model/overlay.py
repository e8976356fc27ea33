"""The overlay's numbers: which subnet, addresses, names and VXLAN ids every runner has, worked out from two settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

VXLAN_OVERHEAD_BYTES = 50  # outer Ethernet, IPv4, UDP and VXLAN headers
HOST_OFFSET = 254  # where in a runner's subnet the host's address stands, if there is room
FEWEST_SUBNET_BITS = 3  # network, gateway, host, broadcast, and at least one container
MOST_NODE_BITS = 16  # more runners than anybody has, and few enough that every VXLAN id stays below 2^24
BRIDGE, VXLAN_DEVICE, MESH_DEVICE = "kohaku-overlay", "vxlan0", "kohaku-mesh"
HOST_DEVICE_PREFIX = "vxkr"
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Subnet:
    """One runner's part: `.1` is its bridge, `.254` (or the last usable) the host, the others are for containers."""

    number: int
    network: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        return self.network[1]

    @property
    def host(self) -> IPv4Address:
        """The host's address in it."""
        return self.network[min(HOST_OFFSET, self.network.num_addresses - 2)]

    @property
    def capacity(self) -> int:
        """How many containers may have an address in it."""
        return self.network.num_addresses - 4

    def container(self, index: int) -> IPv4Address:
        """The address of the place `index`, from 0 up to `capacity`."""
        offset = 2 + index
        return self.network[offset if self.network[offset] < self.host else offset + 1]

    def is_container(self, address: IPv4Address) -> bool:
        """Whether a container may have it."""
        edges = (self.network.network_address, self.network.broadcast_address)
        return address in self.network and address not in (*edges, self.gateway, self.host)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The whole overlay: a network cut into equal parts, of which the first one is the host's."""

    network: IPv4Network
    node_bits: int
    subnet_bits: int

    @property
    def most_runners(self) -> int:
        return int(2**self.node_bits - 1)

    @property
    def host(self) -> IPv4Address:
        """The host's own address."""
        return self.network[1]

    def subnet(self, number: int) -> Subnet:
        """The part of runner `number`, from 1 on; raises ValueError for a number that there cannot be."""
        if not 1 <= number <= self.most_runners:
            raise ValueError(f"runner {number}: the overlay has room for 1 to {self.most_runners}")
        first = int(self.network.network_address) + (number << self.subnet_bits)
        return Subnet(number, IPv4Network((first, 32 - self.subnet_bits)))

    def subnets(self) -> Iterator[Subnet]:
        return map(self.subnet, range(1, self.most_runners + 1))

    def number_of(self, address: IPv4Address) -> int:
        """In whose part an address lies, 0 for the host's; raises ValueError when it is not of the overlay."""
        if address not in self.network:
            raise ValueError(f"{address} is not in the overlay's {self.network}")
        return (int(address) - int(self.network.network_address)) >> self.subnet_bits


def parse_ranges(text: str) -> Ranges:
    """What `BASE/NETWORK/NODE/SUBNET` (an address, and bits that make 32 together) means; raises ValueError."""
    base, *bits = text.split("/")
    if len(bits) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in bits):
        raise ValueError(f"{text[:60]!r} is not BASE/NETWORK_BITS/NODE_BITS/SUBNET_BITS, such as 10.128.0.0/12/6/14")
    network_bits, node_bits, subnet_bits = map(int, bits)
    if network_bits + node_bits + subnet_bits != 32:
        raise ValueError(f"{text}: the bits make {network_bits + node_bits + subnet_bits}, not 32")
    if not network_bits or not 1 <= node_bits <= MOST_NODE_BITS or subnet_bits < FEWEST_SUBNET_BITS:
        raise ValueError(
            f"{text}: needs a bit for the network, 1 to {MOST_NODE_BITS} for nodes, {FEWEST_SUBNET_BITS} for subnets"
        )
    network = IPv4Network(f"{base}/{network_bits}")  # raises ValueError when the base has bits beyond the network's
    if not _is_usable(network):
        raise ValueError(f"{text}: containers cannot have addresses of {network}")
    return Ranges(network, node_bits, subnet_bits)


def _is_usable(network: IPv4Network) -> bool:
    special = map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))
    return not any(network.overlaps(other) for other in special)


def check_ranges(text: str) -> None:
    """Raise ValueError for what is no OVERLAY_SUBNET."""
    parse_ranges(text)


def host_device(number: int) -> str:
    """The host's device towards a runner."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = BASE36[digit] + digits
    return HOST_DEVICE_PREFIX + digits


def device_number(name: str) -> int | None:
    """Which runner a device of the host leads to; None for a name that is no such device's."""
    digits = name.removeprefix(HOST_DEVICE_PREFIX)
    if not name.startswith(HOST_DEVICE_PREFIX) or not digits or digits[0] == "0" or set(digits) - set(BASE36):
        return None
    return int(digits, 36)


def mac_of(address: IPv4Address) -> str:
    """The hardware address of whatever has an overlay address: locally administered, and the same for ever."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x6B, *address.packed))
