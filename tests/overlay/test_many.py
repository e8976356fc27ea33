"""A host has a device in its kernel towards each of as many runners as there may be, and finds them all again."""

from collections.abc import Iterator

import pytest

from tests.docker_daemon import missing_parts
from tests.overlay.cluster import wait_for
from tests.overlay.crowd import COUNT, devices, lonely_host, seconds_to_join
from tests.overlay.machines import Machine, machines

pytestmark = pytest.mark.docker


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with nothing but a host's memory of its own."""
    if lacking := missing_parts():
        pytest.skip(f"no machines without {', '.join(lacking)}")
    with machines({"host": False}) as found:
        yield found["host"]


def test_63_runners_have_devices_of_their_own_which_a_restart_leaves_alone(machine: Machine) -> None:
    with lonely_host(machine) as cluster:
        seconds_to_join(cluster)
        runners = cluster.overlay()["runners"]
        assert len({r["subnet"] for r in runners}) == len({r["device"] for r in runners}) == COUNT
        wait_for(lambda: f"192.168.77.{99 + COUNT}" in machine.run("bridge fdb"), cluster.logs)
        before = devices(machine)
        cluster.host.kill()
        cluster.host.start()
        wait_for(lambda: len(cluster.overlay()["runners"]) == COUNT, cluster.logs)
        assert devices(machine) == before and not cluster.overlay()["healed"]
    assert "removed device vxkr1r" in machine.cli("cleanup").stdout and not devices(machine)
