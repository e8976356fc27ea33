"""Starts the programs that are measured, and the bare server that is their floor, each in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Program:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    url: str

    def cpu_seconds(self) -> float:
        """Processor time it has used, user and system, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory in MB, as the kernel counts it."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        values = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        return values["Rss"] * 1024 / 1e6


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A server from when it answers until the block ends (SIGTERM, then SIGKILL)."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})}, cwd=ROOT)
    try:
        wait_until_answers(process, url, log)
        yield Program(process, url.rpartition("/")[0] if url.count("/") > 2 else url)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when `url` answers; raises RuntimeError with the log's end when the process died or 30 s passed."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{url} does not answer:\n{log.read_text()[-2000:]}")


@contextmanager
def host(pyz: Path, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A host of the built file."""
    port = free_port()
    settings = {
        "KOHAKURIVER_HOST_PORT": str(port),
        "KOHAKURIVER_HOST_SSH_PROXY_PORT": str(free_port()),
        "KOHAKURIVER_AUTH_ENABLED": "false",
        "KOHAKURIVER_DEFAULT_CONTAINER_NAME": "",
        "KOHAKURIVER_STATE_DIR": str(folder / "host"),
        "KOHAKURIVER_CLUSTER_SECRET_FILE": str(folder / "secret"),
        **(env or {}),
    }
    command = [sys.executable, str(pyz), "host"]
    with running(command, f"http://127.0.0.1:{port}/healthz", folder / "host.log", settings) as program:
        yield program


@contextmanager
def runner(pyz: Path, folder: Path, host_url: str, env: Mapping[str, str]) -> Iterator[Program]:
    """A runner of the built file, from when its node is online."""
    port, name = free_port(), env.get("KOHAKURIVER_RUNNER_HOSTNAME", "alpha")
    settings = {
        "KOHAKURIVER_HOST_ADDRESS": "127.0.0.1",
        "KOHAKURIVER_HOST_PORT": host_url.rpartition(":")[2],
        "KOHAKURIVER_RUNNER_PORT": str(port),
        "KOHAKURIVER_RUNNER_HOSTNAME": name,
        "KOHAKURIVER_STATE_DIR": str(folder / name),
        "KOHAKURIVER_CLUSTER_SECRET_FILE": str(folder / "secret"),
        **env,
    }
    command = [sys.executable, str(pyz), "runner"]
    with running(command, f"{host_url}/api/nodes/{name}", folder / f"{name}.log", settings) as program:
        yield program


@contextmanager
def bare_server(folder: Path) -> Iterator[Program]:
    """The floor: aiohttp with nothing behind it."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare_server", str(port), str(folder)]
    with running(command, f"http://127.0.0.1:{port}/one", folder / "bare.log") as program:
        yield program
