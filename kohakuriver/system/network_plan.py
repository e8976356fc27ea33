"""What a part of the kernel's network should be and what it is; the difference is a list of changes, worked out purely.

Everything of ours is marked, so that nothing of others is ever changed: devices by their alias, routes by their
protocol number, forwarding entries and neighbors by standing on a device of ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import NamedTuple, TypeAlias

DEFAULT_ROUTE = "0.0.0.0/0"
EVERYBODY = "00:00:00:00:00:00"  # the forwarding entry for whatever has no entry of its own


@dataclass(frozen=True, slots=True)
class Mark:
    """By what things are known as ours: a prefix of a device's alias, and a routing protocol number."""

    alias: str
    protocol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A bridge, or a VXLAN device (`vni` above 0); empty `mac` and `master` mean any and none.

    One that is `tagged` carries the mark of a packet to the other machine (the group policy extension of VXLAN).
    """

    name: str
    mtu: int
    vni: int = 0
    port: int = 0
    mac: str = ""
    master: str = ""
    tagged: bool = False

    @property
    def kind(self) -> str:
        return "vxlan" if self.vni else "bridge"


class Address(NamedTuple):
    """An address on a device, with the length of its network's prefix."""

    device: str
    address: str
    prefix: int


class Forward(NamedTuple):
    """To which machine a VXLAN device sends frames for a hardware address."""

    device: str
    mac: str
    machine: str


class Neighbor(NamedTuple):
    """Which hardware address an address on a device has, for ever."""

    device: str
    address: str
    mac: str


class Route(NamedTuple):
    """A way to a network through a gateway that stands on the device."""

    network: str
    gateway: str
    device: str
    source: str


class Port(NamedTuple):
    """Somebody's device that belongs into a bridge of ours."""

    device: str
    bridge: str


Thing: TypeAlias = Address | Forward | Neighbor | Route | Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be; `settings` are values by their path below /proc/sys/net/ipv4."""

    mark: Mark
    devices: tuple[Device, ...] = ()
    things: frozenset[Thing] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenDevice:
    """A device that is there; `kind` is the kernel's word for it, empty for hardware."""

    name: str
    kind: str
    mtu: int
    vni: int
    port: int
    learning: bool
    mac: str
    master: str
    alias: str
    is_up: bool
    tagged: bool = False


class SeenRoute(NamedTuple):
    """A route of anybody's, to a network, with the device it leads to."""

    network: str
    device: str
    protocol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is there: every device and route, but forwarding entries and neighbors only where they may be ours."""

    devices: Mapping[str, SeenDevice] = field(default_factory=dict)
    things: frozenset[Thing] = frozenset()
    routes: tuple[SeenRoute, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One act: `verb` is `add`, `remove`, or `repair` (a device that is there)."""

    verb: str
    what: Device | Thing | tuple[str, str]


def changes(wanted: Wanted, seen: Seen) -> list[Change]:
    """What to do so that what is wanted is there and nothing else of ours; in an order that works."""
    alien = set(strangers(wanted, seen))
    ours = {name for name, device in seen.devices.items() if is_ours(device, wanted.mark)}
    devices = {device.name: device for device in wanted.devices if device.name not in alien}
    gone = {name for name in ours if name not in devices or _is_wrong(devices[name], seen.devices[name])}
    there = {thing for thing in seen.things if thing.device not in gone}
    removable = {thing for thing in there if isinstance(thing, Route) or (thing.device in ours and _is_owned(thing))}
    lacking = {thing for thing in wanted.things - there if thing.device not in alien and _can_be(thing, seen, alien)}
    return [
        *_each("remove", removable - wanted.things, reverse=True),
        *(Change("remove", _as_device(seen.devices[name])) for name in sorted(gone)),
        *(Change("add", device) for device in devices.values() if device.name not in ours - gone),
        *(
            Change("repair", device)
            for device in devices.values()
            if device.name in ours - gone and _differs(device, seen.devices[device.name])
        ),
        *_each("add", lacking),
        *(Change("add", item) for item in sorted(wanted.settings.items()) if seen.settings.get(item[0]) != item[1]),
    ]


def strangers(wanted: Wanted, seen: Seen) -> list[str]:
    """Names of wanted devices under which there is something that is not ours."""
    return [d.name for d in wanted.devices if d.name in seen.devices and not is_ours(seen.devices[d.name], wanted.mark)]


def clashes(network: IPv4Network, seen: Seen, own: tuple[str, ...]) -> list[str]:
    """What of others' lies in a network that is to be ours, in words; `own` is how devices of ours begin."""
    routes = [route for route in seen.routes if route.network != DEFAULT_ROUTE and not route.device.startswith(own)]
    return sorted({f"{r.network} on {r.device}" for r in routes if IPv4Network(r.network).overlaps(network)})


def is_ours(device: SeenDevice, mark: Mark) -> bool:
    """Whether a device carries our mark."""
    return device.alias == mark.alias


def _is_wrong(wanted: Device, seen: SeenDevice) -> bool:
    """Whether it can only be made right by making it anew."""
    kept = wanted.kind, wanted.vni, wanted.port, wanted.tagged
    return kept != (seen.kind, seen.vni, seen.port, seen.tagged) or seen.learning


def _differs(wanted: Device, seen: SeenDevice) -> bool:
    mac = wanted.mac or seen.mac
    return not seen.is_up or (wanted.mtu, mac, wanted.master) != (seen.mtu, seen.mac, seen.master)


def _is_owned(thing: Thing) -> bool:
    """Whether it is ours because its device is; what others put into our bridge is not."""
    return not isinstance(thing, Port)


def _can_be(thing: Thing, seen: Seen, alien: set[str]) -> bool:
    """A port that is not there (any more) cannot be put into its bridge, nor any into a bridge of others."""
    return not isinstance(thing, Port) or (thing.device in seen.devices and thing.bridge not in alien)


def _as_device(seen: SeenDevice) -> Device:
    return Device(name=seen.name, mtu=seen.mtu, vni=seen.vni, port=seen.port, tagged=seen.tagged)


ORDER: tuple[type, ...] = (Port, Address, Forward, Neighbor, Route)


def _each(verb: str, things: Iterable[Thing], reverse: bool = False) -> list[Change]:
    ordered = sorted(things, key=lambda thing: (ORDER.index(type(thing)), thing), reverse=reverse)
    return [Change(verb, thing) for thing in ordered]
