"""Docker networks of ours, and who is in them; every function blocks, and raises EngineFailed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kohakuriver.model.errors import EngineFailed

LABEL = "kohakuriver.network"
TAG_LABEL = "kohakuriver.owner_tag"
TIMEOUT_SECONDS = 30
NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeNetwork:
    """A Docker network; with a `bridge`, which is there already, it is on that, and its way to the outside is ours.

    `kept` are addresses in it that Docker must not give away.
    """

    name: str
    subnet: str
    gateway: str
    bridge: str = ""
    mtu: int = 0
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """A container in a network: its process, its address, its hardware address, and the tag of its owner, if it has one."""

    pid: int
    address: str
    mac: str
    tag: int


class DockerNetworks:
    """The networks of one Docker daemon; `socket` is the path of its unix socket."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._known: dict[str, tuple[int, int]] = {}

    @contextmanager
    def _api(self) -> Iterator[Any]:
        from docker.errors import DockerException
        from requests import RequestException

        from kohakuriver.system.docker_sdk import connect

        try:
            api = connect(self._socket, TIMEOUT_SECONDS)
            try:
                yield api
            finally:
                api.close()
        except (DockerException, RequestException, OSError) as failed:
            raise EngineFailed(f"Docker's networks cannot be asked: {failed}", retry_elsewhere=True) from None

    def ensure(self, network: BridgeNetwork) -> bool:
        """Have the network; whether it had to be made. Raises EngineFailed, also when somebody else has its name."""
        with self._api() as api:
            found = _find(api, network.name)
            if found is not None:
                if LABEL not in (found["Labels"] or {}):
                    raise EngineFailed(f"Docker has a network {network.name} that is not ours")
                if _config(found) == _wanted_config(network):
                    return False
                api.remove_network(network.name)
            api.create_network(network.name, driver="bridge", labels={LABEL: network.name}, **_creation(network))
            return True

    def has(self, name: str) -> bool:
        """Whether there is one, whoever made it."""
        with self._api() as api:
            return _find(api, name) is not None

    def is_ours(self, name: str) -> bool:
        """Whether there is one that we made."""
        with self._api() as api:
            return LABEL in ((_find(api, name) or {}).get("Labels") or {})

    def remove(self, name: str) -> bool:
        """Take a network of ours away; whether there was one. Raises EngineFailed while containers are in it."""
        with self._api() as api:
            found = _find(api, name)
            if found is None or LABEL not in (found["Labels"] or {}):
                return False
            api.remove_network(name)
            return True

    def attached(self, name: str) -> list[Attached]:
        """The running containers in a network."""
        with self._api() as api:
            found = _find(api, name)
            inside = (found or {}).get("Containers") or {}
            told = {key: self._known.get(key) or _told(api.inspect_container(key)) for key in inside}
            self._known = {key: (pid, tag) for key, (pid, tag) in told.items() if pid}
            ends = ((inside[key], *known) for key, known in self._known.items())
            return [
                Attached(pid, end["IPv4Address"].partition("/")[0], end["MacAddress"], tag) for end, pid, tag in ends
            ]


def _told(container: Any) -> tuple[int, int]:
    """Its process (0: none) and the tag of its owner."""
    tag = (container["Config"]["Labels"] or {}).get(TAG_LABEL, "")
    return int(container["State"]["Pid"]), int(tag) if tag.isdecimal() else 0


def _find(api: Any, name: str) -> Any:
    from docker.errors import APIError

    try:
        return api.inspect_network(name)
    except APIError as error:
        if error.status_code == NOT_FOUND:
            return None
        raise


def _options(network: BridgeNetwork) -> dict[str, str]:
    if not network.bridge:
        return {}
    return {
        "com.docker.network.bridge.name": network.bridge,
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.driver.mtu": str(network.mtu),
    }


def _ipam(network: BridgeNetwork) -> dict[str, Any]:
    kept = {f"kept{number}": address for number, address in enumerate(network.kept)}
    return {"Subnet": network.subnet, "Gateway": network.gateway, "AuxiliaryAddresses": kept}


def _creation(network: BridgeNetwork) -> dict[str, Any]:
    return {"options": _options(network), "ipam": {"Driver": "default", "Config": [_ipam(network)]}}


def _wanted_config(network: BridgeNetwork) -> Any:
    return _options(network), [_ipam(network)]


def _config(found: Any) -> Any:
    fields = ("Subnet", "Gateway", "AuxiliaryAddresses")
    return found["Options"], [{name: each.get(name) or {} for name in fields} for each in found["IPAM"]["Config"]]
