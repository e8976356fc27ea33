"""Several machines on this one: network namespaces on one wire, each with its own address, and a dockerd where asked for.

The machine's own network is never touched: the wire is a bridge in a namespace of its own.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kohakuriver.system.netns import in_network_of
from tests.docker_daemon import Daemon, inside, make_network, run_quietly, start_daemon, unmount_below

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK = "192.168.77"
KOHAKURIVER = [sys.executable, "-m", "kohakuriver"]


@dataclass
class Machine:
    """One machine: `directory` holds everything it has, `address` is its own on the wire."""

    directory: Path
    address: str
    daemon: Daemon | None = None
    keeper: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = subprocess.Popen(
            [*inside(self.directory), "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert self.keeper.stdout is not None
        self.keeper.stdout.read(1)  # it is there, and no longer in the network of this machine

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def inside(self) -> list[str]:
        """How a command line begins that is to run there."""
        return inside(self.directory)

    def run(self, command: str, seconds: float = 60.0) -> str:
        """What a shell command says there, whether it ends well or not."""
        done = subprocess.run(
            [*inside(self.directory), "sh", "-c", command], capture_output=True, text=True, timeout=seconds, check=False
        )
        return done.stdout + done.stderr

    def spawn(self, command: list[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program there, from the source tree."""
        with log.open("ab") as out:
            return subprocess.Popen(
                [*inside(self.directory), *command],
                env={**os.environ, **env, "PYTHONPATH": str(REPOSITORY), "HOME": str(self.directory)},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def cli(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One of our own commands, as a person would type it there."""
        return subprocess.run(
            [*inside(self.directory), *KOHAKURIVER, *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(self.directory), **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def connection(self, port: int) -> http.client.HTTPConnection:
        """A way to a port of this machine."""
        return ThereConnection(self, port)

    def listening(self) -> socket.socket:
        """A socket that listens on its address, at a port that is free."""
        made = in_network_of(self.keeper.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.settimeout(20)
        made.bind((self.address, 0))
        made.listen()
        return made

    def close(self) -> None:
        """End the daemon and whatever else is there, and take the network away."""
        self.keeper.kill()
        self.keeper.communicate()
        if self.daemon is not None:
            self.daemon.stop()
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


class ThereConnection(http.client.HTTPConnection):
    """HTTP to a port of a machine, spoken from that machine."""

    def __init__(self, machine: Machine, port: int) -> None:
        super().__init__(machine.address, port, timeout=20)
        self._machine = machine

    def connect(self) -> None:
        made = in_network_of(self._machine.keeper.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        self.sock = made
        made.settimeout(self.timeout)
        made.connect((self.host, self.port))


@dataclass
class Program:
    """A host or runner on a machine; it can be ended and started again. `prefix` is a command that starts it."""

    machine: Machine
    arguments: list[str]
    env: dict[str, str]
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.machine.directory / f"{self.arguments[0]}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Begin to run; it may be a moment before it answers."""
        self.process = self.machine.spawn([*self.prefix, *KOHAKURIVER, *self.arguments], self.env, self.log)

    def kill(self) -> None:
        """End at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End as a service manager does it."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait(30)


@contextmanager
def machines(docker: Mapping[str, bool]) -> Iterator[dict[str, Machine]]:
    """Machines by name, with a dockerd or without; all of it is gone afterwards, whatever happens."""
    top = Path(tempfile.mkdtemp(prefix="krnet-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        wire = _wire(top / "wire")
        stack.callback(wire.close)
        found = {}
        for number, (name, has_docker) in enumerate(docker.items(), 1):
            found[name] = _machine(top / name, f"{NETWORK}.{number}", has_docker)
            stack.callback(found[name].close)
            _plug_in(wire, found[name], number)
        yield found


def _wire(directory: Path) -> Machine:
    directory.mkdir()
    make_network(directory)
    wire = Machine(directory, "")
    wire.run("ip link add wire mtu 1500 type bridge && ip link set wire up")
    return wire


def _machine(directory: Path, address: str, has_docker: bool) -> Machine:
    if has_docker:
        return Machine(directory, address, start_daemon(directory))
    directory.mkdir()
    make_network(directory)
    return Machine(directory, address)


def _plug_in(wire: Machine, machine: Machine, number: int) -> None:
    plug = f"ip link add plug{number} type veth peer name eth0 netns {machine.directory / 'net'}"
    run_quietly([*inside(wire.directory), "sh", "-c", f"{plug} && ip link set plug{number} master wire up"])
    run_quietly(
        [*inside(machine.directory), "sh", "-c", f"ip addr add {machine.address}/24 dev eth0 && ip link set eth0 up"]
    )
