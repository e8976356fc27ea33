"""As many runners as an overlay has room for, made up: they introduce themselves, signed as real ones, and do no more."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.system.secrets import load_secret
from kohakuriver.wire.sign import Request, Signer
from tests.overlay.cluster import OverlayCluster, wait_for
from tests.overlay.machines import Machine

COUNT, AT_ONCE = 63, 4
PATH = "/api/nodes/register"


@contextmanager
def lonely_host(machine: Machine, **env: str) -> Iterator[OverlayCluster]:
    """A host without any runner."""
    cluster = OverlayCluster({"host": machine}, env)
    cluster.host.start()
    try:
        cluster.ask("GET", "/api/nodes")
        yield cluster
    finally:
        cluster.host.stop()


def seconds_to_join(cluster: OverlayCluster) -> float:
    """From the first word of the first of them until the host's kernel has a device towards each."""
    began = time.monotonic()
    shares = [range(first, COUNT, AT_ONCE) for first in range(AT_ONCE)]
    threads = [threading.Thread(target=_introduce, args=(cluster, share)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(devices(cluster.machines["host"])) == COUNT, cluster.logs)
    return time.monotonic() - began


def devices(machine: Machine) -> list[str]:
    """The VXLAN devices of a machine."""
    return machine.run("ip -o link show type vxlan").splitlines()


def _introduce(cluster: OverlayCluster, numbers: range) -> None:
    secret = load_secret(cluster.machines["host"].directory.parent / "cluster_secret")
    for number in numbers:
        body = json.dumps(_introduction(number)).encode()
        signer = Signer(f"made-up-{number}", secret, time.time)
        while not _is_welcome(cluster, signer, body):
            pass


def _is_welcome(cluster: OverlayCluster, signer: Signer, body: bytes) -> bool:
    """Whether the host took it; it first says which life of it must be spoken to."""
    headers, _ = signer.sign(Request("POST", PATH, "", body))
    connection = cluster.connection()
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        said = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status == 401:
        signer.learn(said["error"]["details"]["audience"], said["error"]["details"]["now"])
        return False
    assert answer.status == 200 and said["overlay"], said
    return True


def _introduction(number: int) -> dict[str, object]:
    return {
        "hostname": f"made-up-{number}",
        "url": f"http://192.168.77.{100 + number}:8001",
        "version": "1",
        "engine": "docker",
        "machine": {"cores": 4, "memory_bytes": 8 * 10**9},
        "clock": time.time(),
        "report": {"instance": "x", "sequence": 1, "workloads": []},
        "overlay": {"address": f"192.168.77.{100 + number}"},
    }
