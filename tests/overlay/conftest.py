"""The machines of the overlay's tests: a host and two runners, made once for all of them."""

from collections.abc import Iterator

import pytest

from tests.docker_daemon import missing_parts
from tests.overlay.cluster import OverlayCluster, running
from tests.overlay.machines import Machine, machines


@pytest.fixture(scope="package")
def bed() -> Iterator[dict[str, Machine]]:
    """Three machines on a wire, two of them with Docker."""
    if lacking := missing_parts():
        pytest.skip(f"no machines without {', '.join(lacking)}")
    with machines({"host": False, "n1": True, "n2": True}) as found:
        yield found


@pytest.fixture(scope="module", params=["hub", "mesh"])
def topology(request: pytest.FixtureRequest) -> str:
    """How the runners reach each other."""
    return str(request.param)


@pytest.fixture(scope="module")
def network(bed: dict[str, Machine], topology: str) -> Iterator[OverlayCluster]:
    """A cluster with a ready overlay."""
    with running(bed, KOHAKURIVER_OVERLAY_TOPOLOGY=topology) as cluster:
        yield cluster
        cluster.tidy()


@pytest.fixture(scope="module")
def cluster(bed: dict[str, Machine]) -> Iterator[OverlayCluster]:
    """A cluster with a ready overlay through the host."""
    with running(bed) as made:
        yield made
        made.tidy()
