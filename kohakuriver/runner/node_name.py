"""How this node is called, and by which address others reach it."""

import re
import socket
from dataclasses import dataclass

from kohakuriver.model.errors import BadRequest
from kohakuriver.model.fields import HOSTNAME
from kohakuriver.model.settings import RunnerSettings

ANY_ADDRESS = ("", "0.0.0.0", "::")


def hostname_of(settings: RunnerSettings) -> str:
    """The node's name; raises BadRequest when the machine's own cannot be one."""
    name = settings.runner_hostname or socket.gethostname()
    if not re.fullmatch(HOSTNAME, name):
        raise BadRequest(f"{name[:70]!r} cannot name a node; set RUNNER_HOSTNAME")
    return name


@dataclass(frozen=True, slots=True)
class Place:
    """Where a runner listens, and by which address the host reaches it there; empty while nobody knows."""

    bind: str
    address: str


def place_of(settings: RunnerSettings) -> Place:
    """As configured, else on the way to the host, and only there; may block."""
    found = _address_towards(settings.host_address, settings.host_port or 1)
    own = settings.runner_bind_ip
    return Place(own or found, settings.runner_address or (found if own in ANY_ADDRESS else own))


def url_of(address: str, port: int, scheme: str = "http") -> str:
    """The root of an API at that address."""
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _address_towards(host: str, port: int) -> str:
    """The own address on the way to the host, empty without a way; a connected UDP socket tells it and sends nothing."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""
