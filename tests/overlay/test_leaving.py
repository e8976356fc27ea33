"""After `cleanup` nothing of ours is in a machine, and all of others is as it was."""

import pytest

from tests.overlay.cluster import running
from tests.overlay.machines import Machine

pytestmark = pytest.mark.docker


def everything_of_others(machine: Machine) -> str:
    return machine.run(
        "ip -o link | sed 's/^[0-9]*: //; s/qlen.*//; s/state.*//'; ip route; ip -4 -o addr | sed 's/^[0-9]*: //'; "
        "iptables -S; iptables -t nat -S; nft list tables | grep -v 'table ip6'"
    )


def test_cleanup_leaves_nothing_of_ours_and_all_of_others(bed: dict[str, Machine]) -> None:
    for machine in bed.values():
        machine.cli("cleanup", **docker_of(machine))
        machine.run(
            "ip link add theirs type vxlan id 77 dstport 4789; ip link set theirs up; iptables -A FORWARD -i theirs -j DROP"
        )
    before = {name: everything_of_others(machine) for name, machine in bed.items()}
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
        machine.run("ip link del theirs; iptables -D FORWARD -i theirs -j DROP")


def docker_of(machine: Machine) -> dict[str, str]:
    return {"KOHAKURIVER_DOCKER_SOCKET": machine.daemon.socket} if machine.daemon else {}
