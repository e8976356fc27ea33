"""Without an overlay, containers are in the Docker network that the settings name; it is made when it is not there."""

from collections.abc import Iterator

import pytest

from tests.overlay.cluster import OverlayCluster, wait_for
from tests.overlay.machines import Machine
from tests.overlay.test_leaving import docker_of

pytestmark = pytest.mark.docker
NAMED = {"KOHAKURIVER_DOCKER_NETWORK_NAME": "kohakuriver-net"}


@pytest.fixture
def plain(bed: dict[str, Machine]) -> Iterator[OverlayCluster]:
    """A cluster without an overlay."""
    cluster = OverlayCluster(bed, {"KOHAKURIVER_OVERLAY_ENABLED": "false"})
    for runner in cluster.runners.values():
        runner.env |= NAMED
    try:
        cluster.start()
        yield cluster
        cluster.tidy()
    finally:
        cluster.stop()


def test_the_network_is_made_at_the_first_need_and_cleaned_up(plain: OverlayCluster, bed: dict[str, Machine]) -> None:
    done = plain.run("sh", "-c", "ip addr; ip route", targets=["n1"])
    said = plain.output(done["task_id"]).decode()
    assert "inet 172.30.0.2/16" in said and "default via 172.30.0.1 dev" in said, said
    plain.tidy()
    plain.runners["n1"].stop()  # which would make anew what it still has of an overlay
    cleaned = bed["n1"].cli("cleanup", **NAMED, **docker_of(bed["n1"]))
    assert "removed Docker's network kohakuriver-net" in cleaned.stdout, cleaned.stderr


def test_where_others_have_its_addresses_that_is_told(plain: OverlayCluster, bed: dict[str, Machine]) -> None:
    bed["n2"].run("ip link add mine type bridge; ip addr add 172.30.7.1/24 dev mine; ip link set mine up")
    try:
        task_id = plain.begin("true", targets=["n2"])
        wait_for(lambda: "172.30.7.0/24 on mine" in str(plain.nodes()["n2"]["warnings"]), plain.logs)
        wait_for(lambda: "172.30.7.0/24 on mine" in str(plain.task(task_id)["reason"]), plain.logs)
    finally:
        bed["n2"].run("ip link del mine")
    assert plain.wait(task_id)["status"] == "completed"
    plain.runners["n2"].stop()
    bed["n2"].cli("cleanup", **NAMED, **docker_of(bed["n2"]))
