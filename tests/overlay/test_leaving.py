"""After `cleanup` nothing of ours is in a machine, and all of others is as it was."""

from collections.abc import Iterator

import pytest

from tests.overlay.cluster import running
from tests.overlay.machines import Machine

pytestmark = pytest.mark.docker
# What others have, some of it called nearly as ours is.
PLANT = """
ip link add theirs type vxlan id 77 dstport 4789 && ip link set theirs up
ip link add kohaku-other type bridge && ip link set kohaku-other alias 'kohakuriver overlay hosting'
ip link add vxkr9 type vxlan id 909 dstport 4790 && ip route add 10.99.0.0/16 dev theirs proto 109
iptables -A FORWARD -i theirs -j DROP && iptables -N KOHAKU-NODE-FORWARDED && iptables -A FORWARD -j KOHAKU-NODE-FORWARDED
iptables -t nat -A POSTROUTING -s 10.99.0.0/16 -m comment --comment kohakuriver -j MASQUERADE
nft add table bridge KOHAKU-NODES && nft add chain bridge KOHAKU-NODES ports
"""
UPROOT = """
ip link del theirs; ip link del kohaku-other; ip link del vxkr9
iptables -D FORWARD -i theirs -j DROP; iptables -D FORWARD -j KOHAKU-NODE-FORWARDED; iptables -X KOHAKU-NODE-FORWARDED
iptables -t nat -D POSTROUTING -s 10.99.0.0/16 -m comment --comment kohakuriver -j MASQUERADE
nft delete table bridge KOHAKU-NODES
"""


def everything_of_others(machine: Machine) -> str:
    return machine.run(
        "ip -d -o link | sed 's/^[0-9]*: //; s/qlen.*//; s/state.*//'; ip route; ip -4 -o addr | sed 's/^[0-9]*: //'; "
        "iptables -S; iptables -t nat -S; nft list tables | grep -v 'table ip6'"
    )


@pytest.fixture
def before(bed: dict[str, Machine]) -> Iterator[dict[str, str]]:
    """Machines on which others have something, and nobody of us has: all that is there."""
    for machine in bed.values():
        machine.cli("cleanup", **docker_of(machine))
        assert "rror" not in machine.run(PLANT)
    yield {name: everything_of_others(machine) for name, machine in bed.items()}
    for machine in bed.values():
        machine.run(UPROOT)


def test_cleanup_leaves_nothing_of_ours_and_all_of_others(bed: dict[str, Machine], before: dict[str, str]) -> None:
    with running(bed, KOHAKURIVER_OVERLAY_TOPOLOGY="mesh") as cluster:
        assert all(everything_of_others(machine) != before[name] for name, machine in bed.items())
        refused = bed["n1"]
        cluster.place("n1")
        assert "containers are in kohakuriver-overlay" in refused.cli("cleanup", **docker_of(refused)).stderr
        cluster.tidy()
    for name, machine in bed.items():
        said = machine.cli("cleanup", **docker_of(machine))
        assert said.returncode == 0 and "removed device" in said.stdout, said
        assert everything_of_others(machine) == before[name]
        assert "nothing of an overlay is here" in machine.cli("cleanup", **docker_of(machine)).stdout


def docker_of(machine: Machine) -> dict[str, str]:
    return {"KOHAKURIVER_DOCKER_SOCKET": machine.daemon.socket} if machine.daemon else {}
