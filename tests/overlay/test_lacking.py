"""A node that lacks something for the overlay does without it, works, and says what it lacks."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.overlay.cluster import OverlayCluster, running, wait_for
from tests.overlay.machines import Machine

pytestmark = pytest.mark.docker
POWERLESS = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
IPTABLES = ("iptables", "iptables-restore")


@pytest.fixture
def cluster(bed: dict[str, Machine]) -> Iterator[OverlayCluster]:
    """A cluster whose nodes have all that they need."""
    with running(bed) as made:
        yield made
        made.tidy()


@contextmanager
def n2_started(cluster: OverlayCluster, *prefix: str) -> Iterator[None]:
    """Meanwhile n2 is started by this command."""
    runner = cluster.runners["n2"]
    runner.kill()
    runner.machine.run("nft delete table bridge KOHAKU-NODE")
    runner.prefix = prefix
    runner.start()
    try:
        yield
    finally:
        runner.kill()
        runner.prefix = ()
        runner.start()
        cluster.until_ready()


def having_only(folder: Path, *names: str) -> tuple[str, str]:
    """A command that starts another, which finds just these programs."""
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return "env", f"PATH={folder}"


def is_told(cluster: OverlayCluster, text: str) -> bool:
    """Whether the node says so in its warnings, and the overlay where it can do nothing."""
    return text in str(cluster.nodes()["n2"]["warnings"])


def test_without_the_right_to_change_the_network_it_works_and_says_so(cluster: OverlayCluster) -> None:
    with n2_started(cluster, *POWERLESS):
        wait_for(lambda: is_told(cluster, "needs root (or CAP_NET_ADMIN)"), cluster.logs)
        assert cluster.run("true", targets=["n2"])["status"] == "completed"
        host = cluster.machines["host"]
        shown = host.cli("node", "overlay", "--json", KOHAKURIVER_HOST=host.address).stdout
        assert "needs root (or CAP_NET_ADMIN)" in shown


def test_with_iptables_only_it_takes_part_and_says_what_it_cannot_do(cluster: OverlayCluster, tmp_path: Path) -> None:
    with n2_started(cluster, *having_only(tmp_path, *IPTABLES)):
        wait_for(lambda: is_told(cluster, "install nftables"), cluster.logs)
        one, two = cluster.place("n1"), cluster.place("n2")
        assert one.reaches(two.address) and two.reaches(one.address)


def test_without_any_firewall_it_says_what_to_install(cluster: OverlayCluster, tmp_path: Path) -> None:
    with n2_started(cluster, *having_only(tmp_path)):
        wait_for(lambda: is_told(cluster, "neither iptables nor nft is there: install nftables"), cluster.logs)
        assert cluster.run("true", targets=["n2"])["status"] == "completed"


def test_where_owners_are_kept_apart_a_node_that_cannot_do_that_takes_no_part(
    bed: dict[str, Machine], tmp_path: Path
) -> None:
    with running(bed, KOHAKURIVER_OVERLAY_ISOLATION="owner") as cluster:
        with n2_started(cluster, *having_only(tmp_path, *IPTABLES)):
            wait_for(lambda: is_told(cluster, "owners cannot be kept apart here: install nftables"), cluster.logs)
        cluster.tidy()
