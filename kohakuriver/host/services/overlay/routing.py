"""What the host lets through between runners: pure."""

from collections.abc import Iterable

from kohakuriver.model.overlay import BRIDGE, HOST_DEVICE_PREFIX, Ranges
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.firewall import Hook, Rule, Verdict

FIREWALL_NAME = "KOHAKU-HOST"
RUNNERS = f"{HOST_DEVICE_PREFIX}*"


def rules(settings: HostSettings, ranges: Ranges, machines: Iterable[str]) -> list[Rule]:
    """Overlay to overlay may pass, nothing else may come out of it or in; VXLAN comes from members only."""
    network, port = str(ranges.network), settings.overlay_vxlan_port
    vnis = (settings.overlay_vxlan_id, settings.overlay_vxlan_id + ranges.most_runners)
    forward, accept, drop = Hook.FORWARD, Verdict.ACCEPT, Verdict.DROP
    members = list(machines)
    return [
        Rule(hook=forward, verdict=accept, in_device=RUNNERS, source=network, destination=network),
        Rule(hook=forward, verdict=accept, in_device=BRIDGE, out_device=RUNNERS, source=network),
        Rule(hook=forward, verdict=drop, in_device=RUNNERS),
        Rule(hook=forward, verdict=drop, out_device=RUNNERS),
        # What is forwarded would look as if this machine had sent it; it may be the router between two members.
        *(Rule(hook=forward, verdict=accept, source=machine, udp_port=port, vnis=vnis) for machine in members),
        Rule(hook=forward, verdict=drop, udp_port=port, vnis=vnis),
        *(Rule(hook=Hook.INPUT, verdict=accept, source=machine, udp_port=port) for machine in members),
        Rule(hook=Hook.INPUT, verdict=drop, udp_port=port, vnis=vnis),
    ]
