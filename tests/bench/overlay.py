"""How fast the overlay is: container to container against a VXLAN of the same shape made by hand, and what joining costs."""

import asyncio
import json
import random
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from kohakuriver.host.services.ip_reservation import IPReservationManager, token_key
from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.store import schema
from kohakuriver.model.overlay_api import Reserve
from kohakuriver.model.overlay_part import OverlayWish
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.clock import SystemClock
from kohakuriver.system.sqlite import Database
from tests.bench.figures import Bounds, Figure, at_least, at_most, interleaved, timed
from tests.overlay.cluster import running
from tests.overlay.crowd import lonely_host, seconds_to_join
from tests.overlay.machines import Machine, machines

ROUNDS, SECONDS, MEGABIT = 5, 2, 1_000_000
WANTED = {"hub": 0.9, "mesh": 0.95}
BY_HAND = ("c1", "c2")  # a container on each node
# By hand, beside ours on the same machines, with Docker's rules in the way as they are in ours: a container of a node
# in a bridge, and a VXLAN device to the host (in the bridge) or to the other node (routed).
NODE = """
ip link add hand mtu 1450 type bridge && ip link set hand up && ip addr add 10.200.{n}.1/24 dev hand
ip link add to{n} mtu 1450 type veth peer name eth9 mtu 1450 netns {container} && ip link set to{n} master hand up
ip link add vx mtu 1450 type vxlan id {vni} dstport 4789 nolearning remote {remote} && ip link set vx up
sysctl -qw net.ipv4.conf.vx.rp_filter=0 net.ipv4.conf.hand.rp_filter=0
iptables -I FORWARD -i hand -j ACCEPT && iptables -I FORWARD -o hand -j ACCEPT
"""
CONTAINER = "ip link set eth9 up && ip addr add 10.200.{n}.2/24 dev eth9 && ip route add default via 10.200.{n}.1"
THROUGH_ROUTER = "ip link set vx master hand && ip route add 10.200.0.0/16 via 10.200.{n}.254"
DIRECT = "ip addr add 10.201.0.{n}/24 dev vx && ip route add 10.200.{other}.0/24 via 10.201.0.{other}"
ROUTER = """
ip link add vx{n} mtu 1450 type vxlan id 90{n} dstport 4789 nolearning remote {remote} && ip link set vx{n} up
ip addr add 10.200.{n}.254/24 dev vx{n}
iptables -I FORWARD -i vx{n} -j ACCEPT
"""
UNDO = "for rule in '-i hand' '-o hand' '-i vx1' '-i vx2'; do iptables -D FORWARD $rule -j ACCEPT; done; for each in hand vx vx1 vx2 to1 to2; do ip link del $each; done"


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """Throughput through the host and directly, then what is done in the store."""
    with machines({"host": False, "n1": True, "n2": True, **dict.fromkeys(BY_HAND, False)}) as found:
        ours = {name: found[name] for name in ("host", "n1", "n2")}
        for topology, wanted in WANTED.items():
            with running(ours, KOHAKURIVER_OVERLAY_TOPOLOGY=topology) as cluster:
                one, two = cluster.place("n1"), cluster.place("n2")
                _by_hand(found, topology)
                value, floor = interleaved(
                    partial(_throughput, one.inside, two.inside, two.address),
                    partial(_throughput, found["c1"].inside, found["c2"].inside, "10.200.2.2"),
                    ROUNDS,
                )
                for machine in ours.values():
                    machine.run(UNDO)
                cluster.tidy()
            yield at_least(f"container to container, {topology}", value, "Mbit/s", Bounds(relative=wanted, floor=floor))
    folder.mkdir(parents=True, exist_ok=True)
    with machines({"host": False}) as found, lonely_host(found["host"]) as cluster:
        joining = seconds_to_join(cluster)
    yield at_most("63 runners join, a device in the kernel for each", joining, "s", Bounds(absolute=3))
    reserving = asyncio.run(_in_the_store(folder / "host.db"))
    yield at_most("an address reserved, half of them taken", reserving * 1000, "ms", Bounds(absolute=1))


def _by_hand(found: Mapping[str, Machine], topology: str) -> None:
    for n, other in ((1, 2), (2, 1)):
        node, container = found[f"n{n}"], found[f"c{n}"]
        remote = found["host" if topology == "hub" else f"n{other}"].address
        vni = f"90{n}" if topology == "hub" else "900"
        _do(node, NODE.format(n=n, container=container.directory / "net", vni=vni, remote=remote))
        _do(node, (THROUGH_ROUTER if topology == "hub" else DIRECT).format(n=n, other=other))
        _do(container, CONTAINER.format(n=n))
        if topology == "hub":
            _do(found["host"], ROUTER.format(n=n, remote=node.address))


def _do(machine: Machine, script: str) -> None:
    said = machine.run(f"set -e\n{script}\necho done")
    assert said.endswith("done\n"), said


def _throughput(client: Sequence[str], server: Sequence[str], address: str) -> float:
    """Megabits a second that one TCP connection carries."""
    listening = subprocess.Popen([*server, "iperf3", "-s", "-1", "-J"], stdout=subprocess.DEVNULL)
    try:
        command = [*client, "iperf3", "-c", address, "-t", str(SECONDS), "-J"]
        for _ in range(50):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            received = json.loads(done.stdout)["end"].get("sum_received")
            if received:
                return float(received["bits_per_second"]) / MEGABIT
            time.sleep(0.1)  # the server is not there yet
        raise AssertionError(done.stdout + done.stderr)
    finally:
        listening.terminate()
        listening.wait()


async def _in_the_store(path: Path) -> float:
    """Seconds that one reservation takes in the store."""
    db, clock = Database(path, schema.MIGRATIONS), SystemClock()
    overlay = OverlayNetworkManager(HostSettings(overlay_enabled=True), db, NodeRegistry([], 0.0), clock)
    await overlay.join("n0", OverlayWish(address="198.51.100.1"))
    reservations = IPReservationManager(overlay, token_key(b"bench"), random.Random(1).getrandbits)
    reserve = partial(_reserve_many, reservations, overlay.ranges.subnet(1).capacity // 2)
    seconds = await db.write(reserve)
    overlay.close()
    await asyncio.to_thread(db.close)
    return statistics.median(seconds)


def _reserve_many(reservations: IPReservationManager, count: int, tx: sqlite3.Connection) -> list[float]:
    asked = Reserve(runner="n0")
    one: Callable[[int], object] = lambda number: reservations.reserve(tx, f"user-{number // 500}", asked, 0.0)
    for number in range(count):
        one(number)
    return [timed(partial(one, count + number)) for number in range(99)]
