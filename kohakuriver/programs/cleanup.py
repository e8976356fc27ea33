"""`kohakuriver cleanup`: takes the overlay of this machine out of the kernel and out of Docker; nothing of others."""

from kohakuriver.client.complaints import Parser
from kohakuriver.host.services.overlay.routing import FIREWALL_NAME as HOST_FIREWALL
from kohakuriver.host.services.overlay.vxlan import MARK as HOST_MARK
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.programs.setting_flags import add_flags, load_from
from kohakuriver.runner.overlay_plan import FIREWALL_NAME, MARK, OVERLAY_NETWORK
from kohakuriver.system import netlink
from kohakuriver.system.docker_network import DockerNetworks
from kohakuriver.system.firewall import Firewall
from kohakuriver.system.network_plan import Device, Mark, Wanted

ABOUT = (
    "Take the overlay network out of this machine: devices, routes, rules and Docker's network, of host and runner. "
    "Stop both first, or they make it anew; containers must be out of it."
)


def run(arguments: list[str]) -> int:
    """Take it away, and say what it was; raises Unavailable without root, EngineFailed while containers are in it."""
    parser = Parser("kohakuriver cleanup", "kohakuriver cleanup [OPTIONS]", ABOUT, allow_abbrev=False)
    add_flags(parser, "runner")
    settings = load_from("runner", parser.parse_args(arguments[1:])).settings
    assert isinstance(settings, RunnerSettings)
    netlink.check_allowed()
    gone = [*_docker(settings), *_kernel(MARK, FIREWALL_NAME), *_kernel(HOST_MARK, HOST_FIREWALL)]
    for line in gone:
        print(f"removed {line}")
    if not gone:
        print("nothing of an overlay is here")
    return 0


def _docker(settings: RunnerSettings) -> list[str]:
    networks, names = DockerNetworks(settings.docker_socket), (OVERLAY_NETWORK, settings.docker_network_name)
    try:
        inside = {name: len(networks.attached(name)) for name in names if networks.is_ours(name)}
    except EngineFailed as away:
        print(f"Docker's networks stay as they are: {away}")
        return []
    for name, count in inside.items():
        if count:
            raise EngineFailed(f"{count} containers are in {name}: end them first")
    return [f"Docker's network {name}" for name in inside if networks.remove(name)]


def _kernel(mark: Mark, firewall_name: str) -> list[str]:
    firewall = Firewall(firewall_name)
    rules, guards = firewall.set_rules([]), firewall.set_guard(None)
    changes = netlink.reconcile(Wanted(mark=mark))
    names = [f"device {change.what.name}" for change in changes if isinstance(change.what, Device)]
    return [*(["firewall rules"] if rules or guards else []), *names]
