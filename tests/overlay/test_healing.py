"""What is deleted by hand, on a node or on the host, is there again by itself."""

import functools

import pytest

from tests.overlay.cluster import Container, OverlayCluster, wait_for

pytestmark = pytest.mark.docker
FAR_END = r"$(bridge fdb show dev vxkr2 | sed -n 's/.* dst \([0-9.]*\) .*/\1/p')"
CUTS_ON_THE_HOST = (
    "ip link del vxkr1",
    f"bridge fdb del 00:00:00:00:00:00 dev vxkr2 dst {FAR_END} self",
    "ip link set vxkr1 down",
)


@pytest.fixture(scope="module")
def pair(cluster: OverlayCluster) -> tuple[Container, Container]:
    """A container on each node."""
    return cluster.place("n1"), cluster.place("n2")


def has_healed(cluster: OverlayCluster, before: int) -> bool:
    return bool(cluster.overlay()["healed"] > before)


def healed(cluster: OverlayCluster, node: str) -> int:
    return int(next(r["healed"] for r in cluster.overlay()["runners"] if r["hostname"] == node))


@pytest.mark.parametrize(
    "cut",
    [
        "ip link del vxlan0",
        "bridge fdb del 00:00:00:00:00:00 dev vxlan0 dst 192.168.77.1 self",
        "ip route del 10.128.0.0/12",
        "ip addr flush dev kohaku-overlay",
        "ip link set kohaku-overlay down",
        "ip link del kohaku-overlay",
    ],
)
def test_what_is_cut_on_a_node_heals_by_itself(
    cluster: OverlayCluster, pair: tuple[Container, Container], cut: str
) -> None:
    before = healed(cluster, "n1")
    assert "rror" not in cluster.machines["n1"].run(cut)
    wait_for(lambda: healed(cluster, "n1") > before and pair[0].reaches(pair[1].address), cluster.logs)
    assert pair[1].reaches(pair[0].address)
    text = cluster.fetch("GET", "/metrics")[1].decode()
    assert f'kohakuriver_overlay_healed_total{{node="n1"}} {healed(cluster, "n1")}' in text


def test_what_is_cut_on_the_host_heals_by_itself(cluster: OverlayCluster, pair: tuple[Container, Container]) -> None:
    for cut in CUTS_ON_THE_HOST:
        before = cluster.overlay()["healed"]
        cluster.machines["host"].run(cut)
        wait_for(functools.partial(has_healed, cluster, before), cluster.logs)
        wait_for(lambda: pair[0].reaches(pair[1].address), cluster.logs)


def test_a_deleted_rule_comes_back(cluster: OverlayCluster) -> None:
    machine = cluster.machines["n1"]
    machine.run("iptables -D KOHAKU-NODE-FORWARD 1; iptables -t nat -F KOHAKU-NODE-POSTROUTING")
    machine.run(
        "ip link add nudge type bridge; ip link del nudge"
    )  # rules are looked at every minute, and with any change
    wait_for(lambda: "MASQUERADE" in machine.run("iptables -t nat -S KOHAKU-NODE-POSTROUTING"), cluster.logs)
    assert "-j DROP" in machine.run("iptables -S KOHAKU-NODE-FORWARD")
