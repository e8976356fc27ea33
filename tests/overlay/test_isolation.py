"""With `OVERLAY_ISOLATION = "owner"`, containers of one owner reach each other, and nobody else's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.overlay.cluster import Container, OverlayCluster, running, wait_for
from tests.overlay.machines import Machine

pytestmark = pytest.mark.docker
MASTER = "whoever-has-this-is-the-master-here"
ACCOUNTS = {
    "KOHAKURIVER_OVERLAY_ISOLATION": "owner",
    "KOHAKURIVER_AUTH_ENABLED": "true",
    "KOHAKURIVER_ADMIN_SECRET": MASTER,
}


@pytest.fixture(scope="module")
def people(bed: dict[str, Machine], topology: str) -> Iterator[tuple[OverlayCluster, dict[str, str]]]:
    """A cluster in which owners are kept apart, and the headers by which it knows two of them."""
    master = {"X-Admin-Token": MASTER}
    with running(bed, master, KOHAKURIVER_OVERLAY_TOPOLOGY=topology, **ACCOUNTS) as cluster:
        code = cluster.ask("POST", "/api/auth/invitations", {"role": "operator"})["code"]
        asked = {"username": f"ann-{topology}", "password": "long enough", "invitation": code, "token_name": "test"}
        token = cluster.ask("POST", "/api/auth/register", asked)["token"]
        yield cluster, {"Authorization": f"Bearer {token}"}
        cluster.headers = master
        cluster.tidy()


def place(people: tuple[OverlayCluster, dict[str, str]], node: str) -> Container:
    """A container of the other owner."""
    cluster, anns = people
    masters, cluster.headers = cluster.headers, anns
    try:
        return cluster.place(node)
    finally:
        cluster.headers = masters


def test_only_containers_of_one_owner_reach_each_other(people: tuple[OverlayCluster, dict[str, str]]) -> None:
    cluster = people[0]
    here, there = cluster.place("n1"), cluster.place("n2")
    beside, away, twin = place(people, "n1"), place(people, "n2"), place(people, "n1")
    for one, two in ((here, there), (beside, away), (beside, twin)):
        assert one.reaches(two.address) and two.reaches(one.address)
    strangers = [(one, two) for one in (here, there) for two in (beside, away)]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda pair: pair[0].reaches(pair[1].address), [*strangers, *((b, a) for a, b in strangers)])
        assert not any(found)
    gateway, outside = cluster.overlay()["runners"][0]["gateway"], cluster.machines["host"].address
    assert all(each.reaches(gateway) and each.reaches(outside) for each in (here, there, beside, away))


def test_a_container_that_goes_round_by_the_gateway_is_kept_apart_all_the_same(
    people: tuple[OverlayCluster, dict[str, str]],
) -> None:
    cluster = people[0]
    here, beside = cluster.place("n1"), place(people, "n1")
    gateway = next(r["gateway"] for r in cluster.overlay()["runners"] if r["hostname"] == "n1")
    here.run(f"ip route add {beside.address} via {gateway} onlink dev eth0")
    beside.run(f"ip route add {here.address} via {gateway} onlink dev eth0")
    assert not here.reaches(beside.address) and not beside.reaches(here.address)


def test_who_is_put_into_the_network_by_hand_reaches_no_container(
    people: tuple[OverlayCluster, dict[str, str]],
) -> None:
    cluster = people[0]
    here = cluster.place("n1")
    daemon = cluster.machines["n1"].daemon
    assert daemon is not None
    name = ["run", "-d", "--rm", "--name", "stray", "--network", "kohakuriver-overlay"]
    said = daemon.cli(*name, "kohakuriver/busybox:base", "sleep", "3600")
    assert not said.returncode, said.stderr
    try:
        facts = daemon.request("GET", "/containers/stray/json")["NetworkSettings"]["Networks"]["kohakuriver-overlay"]
        stray = Container(daemon, "stray", facts["IPAddress"])
        wait_for(lambda: stray.reaches(facts["Gateway"]), cluster.logs)
        assert not stray.reaches(here.address) and not here.reaches(stray.address)
    finally:
        daemon.cli("rm", "-f", "stray")
