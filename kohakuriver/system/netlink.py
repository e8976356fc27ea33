"""Hands for the kernel's network: look at all of it, and make one change; every function may block."""

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kohakuriver.model.errors import Unavailable
from kohakuriver.system.network_plan import (
    Address,
    Change,
    Device,
    Forward,
    Mark,
    Neighbor,
    Port,
    Route,
    Seen,
    SeenDevice,
    SeenRoute,
    Thing,
    Wanted,
    changes,
)

if TYPE_CHECKING:
    from pyroute2 import IPRoute

SETTINGS = Path("/proc/sys/net/ipv4")
PERMANENT = 0x80  # NUD_PERMANENT of linux/neighbour.h
SELF = 2  # NTF_SELF: an entry of the VXLAN device itself, not of the bridge it is in
MAIN_TABLE, UNICAST, UP = 254, 1, 1
CAP_NET_ADMIN = 12  # of linux/capability.h
PORT_TAKEN = (
    "UDP port {port} belongs to somebody else: to a program, or to a VXLAN device that carries tags where ours does not, "
    "or the other way round; set OVERLAY_VXLAN_PORT on the host to another"
)
HARMLESS = (errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)  # somebody was quicker


@contextmanager
def open_netlink() -> Iterator["IPRoute"]:
    """A connection with the kernel in this thread's network namespace; raises Unavailable when it refuses."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    connection = IPRoute()
    try:
        yield connection
    except (NetlinkError, OSError) as refused:
        raise Unavailable(f"the kernel's network cannot be changed: {refused}") from None
    finally:
        connection.close()


def reconcile(wanted: Wanted, seen: Seen | None = None) -> list[Change]:
    """Make what is wanted true; the changes that it took. `seen` is what was there just now. Raises Unavailable."""
    with open_netlink() as kernel:
        there = seen or look(kernel, wanted.mark)
        todo = changes(wanted, replace(there, settings={name: _setting(name) for name in wanted.settings}))
        for change in todo:
            make(kernel, change, wanted.mark)
        return todo


def look(kernel: "IPRoute", mark: Mark) -> Seen:
    """All that a plan needs to know, but for settings."""
    links = list(kernel.get_links())
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    devices = {names[link["index"]]: _device(link, names) for link in links}
    ports = {Port(device.name, device.master) for device in devices.values() if device.master and not device.alias}
    routes = [route for route in kernel.get_routes(family=socket.AF_INET) if _is_plain(route)]
    return Seen(
        devices=devices,
        things=frozenset(
            {
                *ports,
                *_addresses(kernel, names),
                *_forwards(kernel, names),
                *_neighbors(kernel, names),
                *(_route(route, names) for route in routes if route["proto"] == mark.protocol),
            }
        ),
        routes=tuple(SeenRoute(_network(r), names.get(r.get_attr("RTA_OIF"), ""), r["proto"]) for r in routes),
    )


def make(kernel: "IPRoute", change: Change, mark: Mark) -> None:
    """Make one change; that somebody else made it meanwhile is fine. Raises NetlinkError, OSError, Unavailable."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        _make(kernel, change, mark)
    except NetlinkError as refused:
        if refused.code == errno.EADDRINUSE and isinstance(change.what, Device):
            raise Unavailable(PORT_TAKEN.format(port=change.what.port)) from None
        if refused.code not in HARMLESS:
            raise
    except FileNotFoundError:
        pass  # a setting of a device that has just gone


def _make(kernel: "IPRoute", change: Change, mark: Mark) -> None:
    what = change.what
    if isinstance(what, Device):
        _make_device(kernel, change.verb, what, mark)
    elif isinstance(what, (Address, Forward, Neighbor, Route, Port)):
        _make_thing(kernel, change.verb, what, mark)
    else:
        (SETTINGS / what[0]).write_text(what[1])


def _make_device(kernel: "IPRoute", verb: str, device: Device, mark: Mark) -> None:
    if verb == "remove":
        kernel.link("del", index=_index(device.name))
        return
    if verb == "add":
        kernel.link("add", ifname=device.name, kind=device.kind, **(_vxlan(device) if device.vni else {}))
    index = _index(device.name)
    master = _index(device.master) if device.master else 0
    mac = {"address": device.mac} if device.mac else {}
    kernel.link("set", index=index, ifalias=mark.alias, mtu=device.mtu, master=master, state="up", **mac)


def _vxlan(device: Device) -> dict[str, Any]:
    tags = {"vxlan_gbp": True} if device.tagged else {}  # a flag: that it stands there is what counts
    return {"vxlan_id": device.vni, "vxlan_port": device.port, "vxlan_learning": False, **tags}


def _make_thing(kernel: "IPRoute", verb: str, thing: Thing, mark: Mark) -> None:
    index, act = _index(thing.device), "add" if verb == "add" else "del"
    if isinstance(thing, Address):
        kernel.addr(act, index=index, address=thing.address, prefixlen=thing.prefix)
    elif isinstance(thing, Forward):
        kernel.fdb("append" if verb == "add" else "del", ifindex=index, lladdr=thing.mac, dst=thing.machine)
    elif isinstance(thing, Neighbor):
        act = "replace" if verb == "add" else act
        kernel.neigh(act, ifindex=index, dst=thing.address, lladdr=thing.mac, state=PERMANENT)
    elif isinstance(thing, Port):
        kernel.link("set", index=index, master=_index(thing.bridge))
    else:
        way = {"gateway": thing.gateway, "oif": index, "prefsrc": thing.source, "flags": ["onlink"]}
        kernel.route("replace" if verb == "add" else act, dst=thing.network, proto=mark.protocol, **way)


def _index(name: str) -> int:
    """The number of a device; raises NetlinkError, as whatever is done with one that is not there."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise NetlinkError(errno.ENODEV, f"there is no device {name}") from None


def _device(link: Any, names: dict[int, str]) -> SeenDevice:
    vxlan = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""

    def of_vxlan(name: str) -> int:
        return int((vxlan.get_attr(f"IFLA_VXLAN_{name}") if vxlan and kind == "vxlan" else 0) or 0)

    return SeenDevice(
        name=names[link["index"]],
        kind=kind,
        mtu=link.get_attr("IFLA_MTU") or 0,
        vni=of_vxlan("ID"),
        port=of_vxlan("PORT"),
        learning=bool(of_vxlan("LEARNING")),
        mac=link.get_attr("IFLA_ADDRESS") or "",
        master=names.get(link.get_attr("IFLA_MASTER") or 0, ""),
        alias=link.get_attr("IFLA_IFALIAS") or "",
        is_up=bool(link["flags"] & UP),
        tagged=bool(of_vxlan("GBP")),
    )


def _addresses(kernel: "IPRoute", names: dict[int, str]) -> Iterator[Address]:
    for found in kernel.get_addr(family=socket.AF_INET):
        if found["index"] in names:
            yield Address(names[found["index"]], found.get_attr("IFA_LOCAL"), found["prefixlen"])


def _forwards(kernel: "IPRoute", names: dict[int, str]) -> Iterator[Forward]:
    for found in kernel.fdb("dump"):
        machine = found.get_attr("NDA_DST")
        if machine and found["flags"] & SELF and found["ifindex"] in names:
            yield Forward(names[found["ifindex"]], found.get_attr("NDA_LLADDR"), machine)


def _neighbors(kernel: "IPRoute", names: dict[int, str]) -> Iterator[Neighbor]:
    for found in kernel.get_neighbours(family=socket.AF_INET):
        if found["state"] == PERMANENT and found["ifindex"] in names and found.get_attr("NDA_LLADDR"):
            yield Neighbor(names[found["ifindex"]], found.get_attr("NDA_DST"), found.get_attr("NDA_LLADDR"))


def _is_plain(route: Any) -> bool:
    return bool(route["table"] == MAIN_TABLE and route["type"] == UNICAST)


def _network(route: Any) -> str:
    return f"{route.get_attr('RTA_DST') or '0.0.0.0'}/{route['dst_len']}"


def _route(route: Any, names: dict[int, str]) -> Route:
    device = names.get(route.get_attr("RTA_OIF"), "")
    return Route(_network(route), route.get_attr("RTA_GATEWAY") or "", device, route.get_attr("RTA_PREFSRC") or "")


def _setting(name: str) -> str:
    try:
        return (SETTINGS / name).read_text().strip()
    except OSError:
        return ""


def attach(ports: Iterable[Port]) -> int:
    """Put devices of others into their bridge; how many were not in it. Raises Unavailable."""
    with open_netlink() as kernel:
        links = {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_MASTER") for link in kernel.get_links()}
        strayed = [port for port in ports if port.device in links and links[port.device] != _index(port.bridge)]
        for port in strayed:
            kernel.link("set", index=_index(port.device), master=_index(port.bridge))
        return len(strayed)


def check_allowed() -> None:
    """Raise Unavailable when this program may not change the network."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective, 16) >> CAP_NET_ADMIN & 1:
        raise Unavailable("the overlay needs root (or CAP_NET_ADMIN), which this program does not have")
