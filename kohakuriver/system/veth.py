"""Which device of this machine leads into a container: the other end of its pair."""

from kohakuriver.model.errors import NotFound
from kohakuriver.system.netlink import open_netlink
from kohakuriver.system.netns import in_network_of


def outer_end(pid: int, mac: str) -> str:
    """The device behind which a process's device with that hardware address is; blocks.

    Raises NotFound when the process or its device has gone, EngineFailed and Unavailable when nobody lets us look.
    """
    index = in_network_of(pid, lambda: _peer_index(mac))
    with open_netlink() as kernel:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in kernel.get_links()}
    if index not in names:
        raise NotFound(f"there is no device {index}")
    return str(names[index])


def _peer_index(mac: str) -> int:
    with open_netlink() as kernel:
        for link in kernel.get_links():
            if link.get_attr("IFLA_ADDRESS") == mac and link.get_attr("IFLA_LINK"):
                return int(link.get_attr("IFLA_LINK"))
    return 0
