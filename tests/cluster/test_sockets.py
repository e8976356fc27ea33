"""Being inside workloads of real clusters: terminals and forwarded ports, through kills and broken connections."""

import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.client.terminal import Terminal, on_terminal
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Client, client_env, on_docker, on_real_machines
from tests.ports import free_port

SERVER = "busybox nc -ll -p {port} -e sh -c 'read word; echo got $word; cat'"


@contextmanager
def connected(cluster: Cluster, home: Path, *words: str) -> Iterator[Terminal]:
    with on_terminal("connect", *words, variables=client_env(cluster, home)) as terminal:
        yield terminal


def says(terminal: Terminal, data: bytes, wanted: bytes) -> None:
    """Type something, and wait until this is painted."""
    os.write(terminal.master, data)
    painted = terminal.read_until(lambda painted: wanted in painted)
    assert wanted in painted, painted


def sleepers(seconds: int) -> list[int]:
    """Processes of this machine that sleep for so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\0%d\0" % seconds:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@on_real_machines
def test_a_program_in_a_workload_is_like_one_here(cluster: Cluster, client: Client) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    said = client(
        "connect", task_id, "--", "sh", "-c", 'printf "%s|" "$@"; echo no >&2; exit 42', "x", "a  b", "", "é*"
    )
    assert (said.returncode, said.stdout, said.stderr) == (42, b"a  b||\xc3\xa9*|", b"no\n")
    missing = client("connect", task_id, "--", "no-such-program")
    assert missing.returncode in (126, 127) and b"no-such-program" in missing.stdout + missing.stderr
    cluster.order(task_id, "kill")
    cluster.wait(task_id)
    gone = client("connect", task_id)
    assert gone.returncode == 5 and b"there is nothing to be in" in gone.stderr


@on_real_machines
def test_a_shell_on_a_terminal_outlives_its_host_and_loses_nothing(cluster: Cluster, tmp_path: Path, pyz: Path) -> None:
    task_id = cluster.shell("sleep 300", targets=["alpha"])
    cluster.wait_for(task_id, "running")
    with connected(cluster, tmp_path, "--shell", "sh", task_id) as terminal:
        says(terminal, b"echo si''ze $(stty size)\n", b"size 24 80")
        terminal.resize(101, 33)
        time.sleep(0.5)  # sizes are told some ten times a second
        says(terminal, b"echo si''ze $(stty size)\n", b"size 33 101")
        os.write(terminal.master, b"X=kept; for i in $(seq 1 40); do echo li''ne-$i; sleep 0.05; done; echo al''l\n")
        terminal.read_until(lambda painted: b"line-5\r\n" in painted)
        cluster.host.kill()
        os.write(terminal.master, b"echo is $X\n")
        cluster.host.start()
        painted = terminal.read_until(lambda painted: b"is kept" in painted)
        assert [int(number) for number in re.findall(rb"line-(\d+)", painted)] == list(range(1, 41))
        os.write(terminal.master, b"sleep 77177\n")
        cluster.until(lambda: sleepers(77177))
        os.write(terminal.master, b"\x03\n~.")
        assert terminal.ended()[0] == 0
    cluster.until(lambda: not sleepers(77177))


@on_real_machines
def test_a_runner_that_is_killed_takes_terminals_along_and_no_workload(
    cluster: Cluster, tmp_path: Path, pyz: Path
) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    with connected(cluster, tmp_path, task_id, "--", "sh", "-c", "echo up; sleep 66166") as terminal:
        terminal.read_until(lambda painted: b"up" in painted)
        cluster.until(lambda: sleepers(66166))
        cluster.runners["beta"].kill()
        cluster.runners["beta"].start()
        code, painted = terminal.ended()
        assert code == 3 and b"the session has ended" in painted, painted
    cluster.until(lambda: not sleepers(66166))
    assert cluster.task(task_id)["status"] == "running" and cluster.task(task_id)["attempt"] == 1


@on_real_machines
def test_who_looks_on_leaves_by_the_usual_keys_and_disturbs_nobody(cluster: Cluster, tmp_path: Path, pyz: Path) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    with connected(cluster, tmp_path, "--shell", "sh", task_id) as typing:
        says(typing, b"echo he''re\n", b"here")
        for keys in (b"echo lo''st\r~.", b"\x03"):
            with connected(cluster, tmp_path, "--watch", task_id) as looking:
                looking.read_until(lambda painted: b"here" in painted)
                os.write(looking.master, keys)
                assert looking.ended()[0] == 0
        says(typing, b"echo go''es on\n", b"goes on")
        assert b"lost" not in typing.painted


@on_real_machines
def test_a_command_that_is_terminated_gives_its_terminal_back(cluster: Cluster, tmp_path: Path) -> None:
    task_id = cluster.shell("sleep 300", targets=["beta"])
    cluster.wait_for(task_id, "running")
    with connected(cluster, tmp_path, "--shell", "sh", task_id) as terminal:
        says(terminal, b"echo he''re\n", b"here")
        assert not termios.tcgetattr(terminal.master)[3] & termios.ICANON, "each key goes there at once"
        terminal.process.send_signal(signal.SIGTERM)
        code, painted = terminal.ended()
        assert code == 143 and b"Traceback" not in painted, painted
        assert termios.tcgetattr(terminal.master)[3] & termios.ICANON


@contextmanager
def forwarding(cluster: Cluster, pyz: Path, home: Path, *words: str) -> Iterator[list[tuple[str, int]]]:
    """The local addresses of a forward while it runs."""
    command = [sys.executable, str(pyz), "forward", *words]
    process = subprocess.Popen(command, env=client_env(cluster, home), stdout=subprocess.PIPE)
    assert process.stdout is not None
    ports = [word for word in words[1:] if word[0].isdigit()]
    try:
        lines = [process.stdout.readline().decode() for _ in ports]
        addresses = [line.split()[0].rpartition(":") for line in lines]
        yield [(host, int(port)) for host, _, port in addresses]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    """What comes back when all is said, to the end."""
    with closing(socket.create_connection(address, timeout=30)) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        parts = []
        while part := peer.recv(65536):
            parts.append(part)
        return b"".join(parts)


def retried(act: Callable[[], bytes], wanted: bytes) -> bytes:
    """A server that serves one after the other may not listen at once."""
    deadline = time.monotonic() + 60
    while (found := _tried(act)) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _tried(act: Callable[[], bytes]) -> bytes:
    try:
        return act()
    except OSError:
        return b""


@on_real_machines
def test_a_port_that_only_the_workload_has_is_reached_and_again_after_the_host_was_killed(
    cluster: Cluster, pyz: Path, tmp_path: Path
) -> None:
    port = free_port()
    task_id = cluster.shell(SERVER.format(port=port), targets=["beta"])
    cluster.wait_for(task_id, "running")
    data = bytes(range(256)) * 400
    with forwarding(cluster, pyz, tmp_path, task_id, f"0:{port}") as [address]:
        assert retried(lambda: exchange(address, b"hello\n" + data), b"got hello\n" + data) == b"got hello\n" + data
        cluster.host.kill()
        cluster.host.start()
        assert retried(lambda: exchange(address, b"again\n"), b"got again\n") == b"got again\n"


@on_docker
def test_nothing_but_the_image_is_in_a_container_that_is_used(cluster: Cluster, client: Client) -> None:
    task_id = cluster.shell("sleep 300", targets=["alpha"])
    cluster.wait_for(task_id, "running")
    assert client("connect", task_id, "--", "true").returncode == 0
    said = client("connect", task_id, "--", "sh", "-c", "find / -xdev -newer /etc/hostname -type f | grep -v '^/proc'")
    assert b"kohaku" not in said.stdout.replace(b"/local_temp", b""), said.stdout


@pytest.mark.artifact
def test_help_of_both_says_how(pyz: Path) -> None:
    for word in ("connect", "forward"):
        said = subprocess.run([sys.executable, str(pyz), word, "--help"], capture_output=True, timeout=60, check=True)
        assert b"examples:" in said.stdout
