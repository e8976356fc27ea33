"""Stock OpenSSH through the API of real clusters: what it forwards, and what is left when a program is killed under it."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import PATIENCE_SECONDS, Cluster
from tests.cluster.conftest import Client, client_env, on_real_machines
from tests.cluster.rig import Member
from tests.cluster.test_sockets import SERVER, exchange, retried, sleepers
from tests.ports import free_port

SLEEP = 1_000_000 + os.getpid()  # nobody else on this machine sleeps for so long
SLOWLY = "8000"  # kbit/s: the copy is under way as long as the test likes


@dataclass(frozen=True, slots=True)
class Ssh:
    """Stock ssh and its family, which find workloads by what `kohakuriver ssh config` wrote."""

    home: Path
    env: dict[str, str]

    def words(self, program: str, *words: str) -> list[str]:
        return [program, "-F", str(self.home / ".ssh/config"), "-o", "BatchMode=yes", *words]

    def run(self, program: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
        """To its end, however that is."""
        words = tuple(self.words(program, *words))
        return subprocess.run(words, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    @contextmanager
    def running(self, program: str, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """It is ended with the block, if it has not ended before."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.words(program, *words), env=self.env, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


@pytest.fixture
def ssh(cluster: Cluster, client: Client, tmp_path: Path) -> Ssh:
    """Ready to go into workloads."""
    assert client("ssh", "config", "--write").returncode == 0
    return Ssh(tmp_path, client_env(cluster, tmp_path) | {"SSH_AUTH_SOCK": ""})


def descriptors(member: object) -> int:
    """How many a program has open."""
    assert isinstance(member, Member) and member.process is not None
    return len(os.listdir(f"/proc/{member.process.pid}/fd"))


@on_real_machines
@pytest.mark.parametrize("dying", ["host", "runner"])
def test_what_is_under_way_ends_with_a_reason_when_a_program_is_killed_and_the_workload_goes_on(
    cluster: Cluster, ssh: Ssh, tmp_path: Path, dying: str
) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    victim, other = cluster.host, cluster.runners["beta"]
    if dying == "runner":
        victim, other = other, victim
    before = descriptors(other)
    where = f"{task_id}.kohakuriver"
    with ExitStack() as stack:
        session = stack.enter_context(ssh.running("ssh", where, f"echo up; sleep {SLEEP}"))
        assert session.stdout is not None and session.stdout.readline() == b"up\n"
        under_way = [session]
        if cluster.kind == "docker":  # else the files are those of the node, and not handed out
            (tmp_path / "big").write_bytes(bytes(50_000_000))
            copy = ssh.running("scp", "-l", SLOWLY, str(tmp_path / "big"), f"{where}:/copy")
            under_way.append(stack.enter_context(copy))
            cluster.until(lambda: arrived(cluster, task_id))
        victim.kill()
        for process in under_way:
            _, told = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode in (255, 1), told
            assert b"closed" in told or b"broke" in told, told
    victim.start()
    cluster.until(lambda: not sleepers(SLEEP))
    cluster.until(lambda: "beta" in cluster.online() and descriptors(other) <= before + 2)
    assert cluster.task(task_id)["status"] == "running" and cluster.task(task_id)["attempt"] == 1
    cluster.until(lambda: ssh.run("ssh", where, "echo back").stdout == b"back\n")


def arrived(cluster: Cluster, task_id: str) -> bool:
    """Whether some of the copy is there."""
    status, content = cluster.fetch("GET", f"/api/fs/{task_id}/read?path=/copy&length=1")
    return status == 200 and content != b""


@on_real_machines
def test_ports_are_forwarded_one_by_one_and_by_a_proxy(cluster: Cluster, ssh: Ssh) -> None:
    port, local, proxy = free_port(), free_port(), free_port()
    task_id = cluster.shell(SERVER.format(port=port), targets=["beta"])
    cluster.wait_for(task_id, "running")
    data = bytes(range(256)) * 1000
    ways = ("-L", f"127.0.0.1:{local}:localhost:{port}", "-D", f"127.0.0.1:{proxy}")
    with ssh.running("ssh", "-N", *ways, f"{task_id}.kohakuriver"):
        wanted = b"got hello\n" + data
        assert retried(lambda: exchange(("127.0.0.1", local), b"hello\n" + data), wanted) == wanted
        assert retried(lambda: by_proxy(proxy, port, b"hello\n" + data), wanted) == wanted


def by_proxy(proxy: int, port: int, data: bytes) -> bytes:
    """What comes back through SOCKS 5 (RFC 1928), by name."""
    with closing(socket.create_connection(("127.0.0.1", proxy), timeout=30)) as peer:
        peer.sendall(b"\x05\x01\x00")
        assert peer.recv(2) == b"\x05\x00"
        peer.sendall(b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big"))
        if len(said := peer.recv(10, socket.MSG_WAITALL)) < 10 or said[1]:
            raise ConnectionRefusedError(f"the proxy says {said!r}")
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        parts = []
        while part := peer.recv(65536):
            parts.append(part)
        return b"".join(parts)


def resident(member: object) -> int:
    """Bytes of memory that a program has."""
    assert isinstance(member, Member) and member.process is not None
    fields = Path(f"/proc/{member.process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@on_real_machines
@pytest.mark.slow
@pytest.mark.parametrize("way", ["ssh", "connect"])
def test_who_reads_a_gigabyte_slowly_costs_no_memory(cluster: Cluster, ssh: Ssh, pyz: Path, way: str) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    members = (cluster.host, cluster.runners["beta"])
    pour = "head -c 1000000000 /dev/zero"
    words = (
        ssh.words("ssh", f"{task_id}.kohakuriver", pour)
        if way == "ssh"
        else ["python3", str(pyz), "connect", task_id, "--", "sh", "-c", pour]
    )
    assert subprocess.run([*words[:-1], "true"], env=ssh.env, check=False).returncode == 0  # all is loaded
    before = [resident(each) for each in members]
    with ExitStack() as stack:
        reader = stack.enter_context(closing(_Slow(words, ssh.env)))
        reader.read(1_000_000)
        for _ in range(3):
            cluster.until(still(lambda: [worked(each) for each in members]))
            assert [now - then < 60_000_000 for now, then in zip(map(resident, members), before, strict=True)] == [
                True
            ] * 2
            reader.read(20_000_000)


class _Slow:
    """A program that is read only when it is asked."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def read(self, size: int) -> None:
        """Raises AssertionError when there is less, or anything but zeros."""
        assert self._process.stdout is not None
        assert self._process.stdout.read(size) == bytes(size)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE_SECONDS)


def worked(member: object) -> int:
    """For how many hundredths of a second a program has had a processor."""
    assert isinstance(member, Member) and member.process is not None
    fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def still(look: Callable[[], list[int]]) -> Callable[[], bool]:
    """Says whether hardly any work was done since it was asked half a second ago or more."""
    seen = [(time.monotonic(), look())]

    def stands() -> bool:
        then, was = seen[-1]
        if time.monotonic() - then < 0.5:
            return False
        seen.append((time.monotonic(), look()))
        return all(now - before <= 5 for now, before in zip(seen[-1][1], was, strict=True))

    return stands
