"""The devices that the host should have, one towards each runner: pure."""

from collections.abc import Collection, Iterable

from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.model.overlay import BRIDGE, HOST_DEVICE_PREFIX, MESH_DEVICE, Ranges, host_device, mac_of
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.network_plan import EVERYBODY, Address, Device, Forward, Mark, Thing, Wanted

ROUTE_PROTOCOL = 107  # of ours on a host; no routing program has it (/etc/iproute2/rt_protos)
MARK = Mark("kohakuriver overlay host", ROUTE_PROTOCOL)
OWN_SIDE = (HOST_DEVICE_PREFIX, BRIDGE, MESH_DEVICE)  # devices (or how they begin) on which the overlay may be
OWN_DEVICE = f"{HOST_DEVICE_PREFIX}0"  # a bridge without ports, which bears the host's own address


def wanted(
    settings: HostSettings, ranges: Ranges, allocations: Iterable[OverlayAllocation], here: Collection[str]
) -> Wanted:
    """A device towards each runner, but for one on the host's own machine, whose bridge is there already."""
    devices = [Device(name=OWN_DEVICE, mtu=settings.overlay_mtu, mac=mac_of(ranges.host))]
    things: set[Thing] = {Address(OWN_DEVICE, str(ranges.host), 32)}
    sysctl = {"ip_forward": "1"}
    for allocation in allocations:
        if allocation.machine in here:
            continue
        name, subnet = host_device(allocation.number), ranges.subnet(allocation.number)
        devices.append(_device(name, settings, allocation.number, mac_of(subnet.host)))
        things |= {
            Address(name, str(subnet.host), subnet.network.prefixlen),
            Forward(name, EVERYBODY, allocation.machine),
        }
        # Whatever comes from a runner must have a source in its own subnet.
        sysctl[f"conf/{name}/rp_filter"] = "1"
    return Wanted(mark=MARK, devices=tuple(devices), things=frozenset(things), settings=sysctl)


def _device(name: str, settings: HostSettings, number: int, mac: str) -> Device:
    return Device(
        name=name,
        mtu=settings.overlay_mtu,
        vni=settings.overlay_vxlan_id + number,
        port=settings.overlay_vxlan_port,
        mac=mac,
        tagged=settings.overlay_isolation == "owner",
    )
