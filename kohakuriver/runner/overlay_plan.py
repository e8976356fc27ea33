"""What a node's kernel and Docker should have for its part of the overlay: pure."""

from collections.abc import Iterable
from ipaddress import IPv4Network

from kohakuriver.model.overlay import BRIDGE, MESH_DEVICE, VXLAN_DEVICE, Subnet, mac_of
from kohakuriver.model.overlay_part import OverlayPart
from kohakuriver.system.docker_network import BridgeNetwork
from kohakuriver.system.firewall import Hook, Rule, Verdict
from kohakuriver.system.network_plan import (
    EVERYBODY,
    Address,
    Device,
    Forward,
    Mark,
    Neighbor,
    Route,
    Thing,
    Wanted,
)
from kohakuriver.system.port_guard import Guard, Guarded

OVERLAY_NETWORK = "kohakuriver-overlay"
ROUTE_PROTOCOL = 108  # of ours on a runner; no routing program has it (/etc/iproute2/rt_protos)
MARK = Mark("kohakuriver overlay runner", ROUTE_PROTOCOL)
FIREWALL_NAME = "KOHAKU-NODE"
OWN_SIDE = (BRIDGE, MESH_DEVICE, "vxkr")  # devices (or how they begin) on which the overlay may be


def subnet_of(part: OverlayPart) -> Subnet:
    """The runner's own subnet."""
    return Subnet(part.number, IPv4Network(part.subnet))


def wanted(part: OverlayPart) -> Wanted:
    """Bridge, tunnel to the host, way to the overlay through it; in a mesh a second tunnel with a way to each peer.

    The ways to peers are more special than the one through the host, so what has no peer goes through the host.
    """
    own = subnet_of(part)
    gateway, prefix = str(own.gateway), own.network.prefixlen
    devices = [Device(name=BRIDGE, mtu=part.mtu, mac=mac_of(own.gateway))]
    things: set[Thing] = {Address(BRIDGE, gateway, prefix)}
    if not part.is_hosts:
        devices.append(_tunnel(part, VXLAN_DEVICE, part.vni, master=BRIDGE))
        things.add(Route(part.network, str(own.host), BRIDGE, gateway))
        if part.host_machine:
            things.add(Forward(VXLAN_DEVICE, EVERYBODY, part.host_machine))
    if part.mesh_vni:
        devices.append(_tunnel(part, MESH_DEVICE, part.mesh_vni, mac=mac_of(own.gateway)))
        things |= _ways_to_peers(part, gateway)
    sysctl = {"ip_forward": "1"}
    for device in (BRIDGE, *((MESH_DEVICE,) if part.mesh_vni else ())):
        # The way there and the way back may differ: one through the host, the other direct.
        sysctl[f"conf/{device}/rp_filter"] = "2"
    return Wanted(mark=MARK, devices=tuple(devices), things=frozenset(things), settings=sysctl)


def _tunnel(part: OverlayPart, name: str, vni: int, master: str = "", mac: str = "") -> Device:
    return Device(name=name, mtu=part.mtu, vni=vni, port=part.port, master=master, mac=mac, tagged=part.is_isolated)


def _ways_to_peers(part: OverlayPart, gateway: str) -> set[Thing]:
    things: set[Thing] = set()
    for peer in part.peers:
        address = IPv4Network(peer.subnet)[1]
        things |= {
            Neighbor(MESH_DEVICE, str(address), mac_of(address)),
            Forward(MESH_DEVICE, mac_of(address), peer.address),
            Route(peer.subnet, str(address), MESH_DEVICE, gateway),
        }
    return things


def rules(part: OverlayPart) -> list[Rule]:
    """Overlay to overlay may pass, the outside sees the node's address, and VXLAN comes from members only."""
    forward, accept, drop = Hook.FORWARD, Verdict.ACCEPT, Verdict.DROP
    network, outside = part.network, f"!{part.network}"
    machines = [] if part.is_hosts else [*filter(None, [part.host_machine]), *sorted(p.address for p in part.peers)]
    # To them what is forwarded would look as if this machine had sent it: nothing behind it may speak our VXLAN.
    forged = [
        Rule(hook=forward, verdict=drop, destination=machine, udp_port=part.port, vnis=_vnis(part))
        for machine in machines
    ]
    found = [
        *forged,
        Rule(hook=forward, verdict=drop, in_device=BRIDGE, source=outside),
        Rule(hook=forward, verdict=accept, in_device=BRIDGE, destination=network),
        Rule(hook=forward, verdict=accept, out_device=BRIDGE, source=network),
        Rule(hook=Hook.POSTROUTING, verdict=Verdict.MASQUERADE, source=part.subnet, destination=outside),
    ]
    if part.mesh_vni:
        found.append(Rule(hook=forward, verdict=drop, in_device=MESH_DEVICE))  # neither from nor to the overlay
    found += [Rule(hook=Hook.INPUT, verdict=accept, source=machine, udp_port=part.port) for machine in machines]
    vnis = [] if part.is_hosts else [part.vni, *([part.mesh_vni] if part.mesh_vni else [])]
    found += [Rule(hook=Hook.INPUT, verdict=drop, udp_port=part.port, vnis=(vni, vni)) for vni in vnis]
    return found


def _vnis(part: OverlayPart) -> tuple[int, int]:
    """The first and the last VXLAN id that the overlay may use anywhere."""
    first = part.vni - part.number
    parts = 1 << (IPv4Network(part.subnet).prefixlen - IPv4Network(part.network).prefixlen)
    return first, first + parts - 1


def guard(part: OverlayPart, members: Iterable[Guarded]) -> Guard:
    """Who may send as whom on the bridge."""
    return Guard(network=part.network, trunk=VXLAN_DEVICE, is_isolated=part.is_isolated, members=tuple(members))


def docker_network(part: OverlayPart) -> BridgeNetwork:
    """Docker's network on the bridge."""
    own = subnet_of(part)
    return BridgeNetwork(
        name=OVERLAY_NETWORK,
        bridge=BRIDGE,
        subnet=part.subnet,
        gateway=str(own.gateway),
        mtu=part.mtu,
        kept=(str(own.host),),
    )
