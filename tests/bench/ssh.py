"""Figures of SSH: stock OpenSSH through the host into a container with an SSH server of its own, and into one without.

The floor is the same sshd on this machine, with nobody between.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import servers
from tests.bench.cluster import Client
from tests.bench.figures import Bounds, Figure, at_least, at_most, interleaved
from tests.docker_daemon import IMAGE, start_daemon

BULK_BYTES, ROUNDS, COMMAND_ROUNDS = 200_000_000, 3, 9
READY_SECONDS = 60.0
CONFIG = """
HostKey {keys}/host
AuthorizedKeysFile {keys}/id.pub
StrictModes no
UsePAM no
PidFile none
"""
# What sshd wants around it, in an image that has nothing; its files are the machine's.
SERVE = (
    "echo sshd:x:100:65534::/run/sshd:/bin/false >> /etc/passwd; mkdir -p /run/sshd; exec /usr/sbin/sshd -De -f /keys/c"
)


@dataclass(frozen=True, slots=True)
class Way:
    """How stock ssh is told to go somewhere."""

    words: tuple[str, ...]

    def run(self, command: str) -> None:
        """Raises CalledProcessError with what ssh said."""
        subprocess.run([*self.words, command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def megabytes_a_second(self) -> float:
        began = time.perf_counter()
        self.run(f"head -c {BULK_BYTES} /dev/zero")
        return BULK_BYTES / 1e6 / (time.perf_counter() - began)

    def milliseconds(self) -> float:
        began = time.perf_counter()
        self.run("true")
        return (time.perf_counter() - began) * 1000


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """All of them, on one private daemon."""
    keys = make_keys(folder)
    daemon = start_daemon(folder / "daemon")
    ssh_port = servers.free_port()
    at_runner = {
        "KOHAKURIVER_DOCKER_SOCKET": daemon.socket,
        "KOHAKURIVER_INITIAL_BASE_IMAGE": IMAGE,
        "KOHAKURIVER_ADDITIONAL_MOUNTS": f"/usr:/usr:ro,/lib:/lib:ro,/lib64:/lib64:ro,{keys}:/keys:ro",
    }
    try:
        with (
            servers.host(pyz, folder, {"KOHAKURIVER_HOST_SSH_PROXY_PORT": str(ssh_port)}) as host,
            servers.runner(pyz, folder, host.url, at_runner),
            direct_sshd(folder, keys) as port,
        ):
            client = Client.to(host.url)
            serving, bare = (running_task(client, word) for word in (SERVE, "exec sleep 3600"))
            yield from bulk(folder, pyz, host.url, (port, ssh_port, serving))
            yield commands(folder, port, (ssh_port, bare))
            for task_id in (serving, bare):
                Client.to(host.url).ask("POST", f"/api/tasks/{task_id}/kill", {})
    finally:
        daemon.stop()


def make_keys(folder: Path) -> Path:
    """A folder with the keys of a server and of a person."""
    keys = folder / "keys"
    keys.mkdir(parents=True)
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", keys / name], check=True)
    (keys / "c").write_text(CONFIG.format(keys="/keys"))
    (keys / "direct").write_text(CONFIG.format(keys=keys))
    return keys


@contextmanager
def direct_sshd(folder: Path, keys: Path) -> Iterator[int]:
    """The floor; gives its port."""
    Path("/run/sshd").mkdir(exist_ok=True)
    port = servers.free_port()
    command = ["/usr/sbin/sshd", "-De", "-f", str(keys / "direct"), "-p", str(port), "-o", "ListenAddress=127.0.0.1"]
    with (folder / "sshd.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until_answers(way(keys, "-p", str(port), "root@127.0.0.1"))
        yield port
    finally:
        process.terminate()
        process.wait()


def running_task(client: Client, script: str) -> str:
    """A container that stays, once it runs."""
    task_id = client.submit({"command": "sh", "arguments": ["-c", script], "required_cores": 0})
    deadline = time.monotonic() + READY_SECONDS
    while client.ask("GET", f"/api/tasks/{task_id}")["status"] != "running":
        if time.monotonic() > deadline:
            raise RuntimeError(f"task {task_id} does not run")
        time.sleep(0.05)
    return task_id


def way(keys: Path, *words: str) -> Way:
    """Stock ssh, which believes what it sees for the first time: all of it is ours."""
    known = f"UserKnownHostsFile={keys / 'known_hosts'}"
    more = ("-o", known, "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR")
    return Way(("ssh", "-F", "none", "-i", str(keys / "id"), *more, *words))


def until_answers(tried: Way) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return tried.run("true")
        except subprocess.CalledProcessError as failed:
            if time.monotonic() > deadline:
                raise RuntimeError(failed.stderr.decode()) from None
            time.sleep(0.1)


def bulk(folder: Path, pyz: Path, url: str, ports: tuple[int, int, str]) -> Iterator[Figure]:
    """Bytes a second out of the workload's own server."""
    (port, ssh_port, task_id), keys = ports, folder / "keys"
    floor = way(keys, "-p", str(port), "root@127.0.0.1")
    to_port = " ".join((*way(keys).words, f"-p {ssh_port} -W %h:%p anybody@127.0.0.1"))
    place = url.removeprefix("http://").split(":")
    through_api = f"{sys.executable} {pyz} --host {place[0]} --port {place[1]} ssh proxy {task_id}"
    for name, command, least in (
        ("`kohakuriver ssh`, to a workload's own sshd", through_api, 0.85),
        ("`ssh -J`, to a workload's own sshd", to_port, 0.45),
    ):
        ours = way(keys, "-o", f"ProxyCommand={command}", f"root@{task_id}")
        until_answers(ours)
        value, bare = interleaved(ours.megabytes_a_second, floor.megabytes_a_second, ROUNDS)
        yield at_least(name, value, "MB/s", Bounds(None, least, bare))
    built_in = way(keys, "-p", str(ssh_port), f"{task_id}@127.0.0.1")
    value, bare = interleaved(built_in.megabytes_a_second, floor.megabytes_a_second, ROUNDS)
    yield at_least("`ssh -p`, to the server that stands for a workload", value, "MB/s", Bounds(20.0, None, bare))


def commands(folder: Path, port: int, at: tuple[int, str]) -> Figure:
    """How much longer `ssh WORKLOAD true` takes than with sshd."""
    keys = folder / "keys"
    ours = way(keys, "-p", str(at[0]), f"{at[1]}@127.0.0.1")
    floor = way(keys, "-p", str(port), "root@127.0.0.1")
    until_answers(ours)
    value, bare = interleaved(ours.milliseconds, floor.milliseconds, COMMAND_ROUNDS)
    return at_most("`ssh WORKLOAD true`, above sshd", value - bare, "ms", Bounds(60.0))
