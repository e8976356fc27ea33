"""How this node is called, and by which address others reach it."""

import re
import socket

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


def address_of(settings: RunnerSettings) -> str:
    """The address by which the host reaches this runner: as configured, else as listened on, else found out."""
    if settings.runner_address:
        return settings.runner_address
    if settings.runner_bind_ip not in ANY_ADDRESS:
        return settings.runner_bind_ip
    return _address_towards(settings.host_address, settings.host_port or 1, socket.gethostname())


def bind_address_of(settings: RunnerSettings) -> str:
    """Where to listen: as configured, else on the way to the host only; everywhere when that is not known yet."""
    return settings.runner_bind_ip or _address_towards(settings.host_address, settings.host_port or 1, "0.0.0.0")


def url_of(address: str, port: int, scheme: str = "http") -> str:
    """The root of an API at that address."""
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _address_towards(host: str, port: int, otherwise: str) -> str:
    """The own address on the way to the host; a connected UDP socket tells it and sends nothing."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return otherwise
