"""An SSH port in a house with accounts, stock OpenSSH in front of it, and processes of this machine in the place of a workload."""

import asyncio
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohakuriver.host.background.ssh import SshKeeper
from kohakuriver.host.services.ssh.host_keys import FOLDER, host_keys
from kohakuriver.host.services.ssh.people import Workload
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import EngineFailed, NotFound
from kohakuriver.model.ssh_api import StartProcess
from kohakuriver.model.terminal import Kind, exit_frame, frame, split
from kohakuriver.system.loops import Loops
from kohakuriver.wire.line import Line
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.sockets import LOST, Message, Socket
from tests.host.auth.house import House, Person, open_house, settings_in

SECONDS = 60.0


class LocalProcess(Socket):
    """A process of this machine in the frames by which workloads are spoken with; no terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.offers: Sequence[str] = ()
        self.protocol, self.close_code, self.close_reason = "", LOST, ""
        self.told: list[Kind] = []
        self._process, self._open, self._said = process, [Kind.OUTPUT, Kind.ERRORS], False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def open(self, protocol: str = "") -> None:
        """It runs."""

    async def receive(self) -> Message | None:
        while self._open:
            stream = self._open[0]
            reader = self._process.stdout if stream is Kind.OUTPUT else self._process.stderr
            assert reader is not None
            if data := await reader.read(65536):
                return frame(stream, data)
            self._open.pop(0)
        code = await self._process.wait()
        if self._said:
            return None
        self._said = True
        return exit_frame(code if code >= 0 else 128 - code)

    async def send(self, message: Message) -> None:
        kind, data = split(message)
        assert self._process.stdin is not None
        if kind is Kind.INPUT:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        elif kind is Kind.END_INPUT:
            self._process.stdin.close()
        else:
            self.told.append(kind)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


@dataclass
class Here:
    """A workload that is this machine: ports are mapped by hand, others are refused."""

    ports: dict[int, int] = field(default_factory=dict)
    wanted: list[StartProcess] = field(default_factory=list)
    workloads: list[Snowflake] = field(default_factory=list)
    reached: list[tuple[int, str, int]] = field(default_factory=list)
    processes: list[LocalProcess] = field(default_factory=list)

    async def port(self, workload: Workload, host: str, port: int) -> Socket:
        self.reached.append((workload.task_id, host, port))
        if port not in self.ports:
            raise NotFound(f"nothing listens on port {port}")
        loop = asyncio.get_running_loop()
        return PlainSocket((await loop.create_connection(Line, "127.0.0.1", self.ports[port]))[1])

    async def process(self, workload: Workload, wanted: StartProcess) -> Socket:
        self.wanted.append(wanted)
        self.workloads.append(workload.task_id)
        pipe = asyncio.subprocess.PIPE
        argv = ["sh", "-c", wanted.command or "cat"]
        made = LocalProcess(
            await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        )
        self.processes.append(made)
        return made

    async def files(self, workload: Workload, user: str) -> Socket:
        raise EngineFailed("it has no files")


@dataclass
class Door:
    """The port and those who come to it, each with a key of his own."""

    house: House
    keeper: SshKeeper
    here: Here
    folder: Path

    def key_of(self, name: str) -> Path:
        """The private key of somebody, made when it is first wanted."""
        path = self.folder / f"key_{name}"
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", path], check=True)
        return path

    async def admit(self, person: Person, key: str = "") -> int:
        """Let somebody come with his key (or that of that name); gives its id."""
        line = self.key_of(key or person.name).with_suffix(".pub").read_text()
        said = await self.house.ask("POST", "/api/auth/keys", person, {"public_key": line})
        assert said.status == 200, said
        return int(said.body["key_id"])

    def options(self, key: str) -> list[str]:
        """What makes stock ssh use one key and believe just this port; strict, as for users."""
        known = self.folder / "known_hosts"
        shown = self.keeper._proxy
        assert shown is not None
        lines = [f"[127.0.0.1]:{self.keeper.port} {key.public_key}" for key in shown.keys.shown]
        authority = shown.keys.authority.export_public_key().decode()
        config = self.folder / f"config_{key}"
        if config.exists():  # somebody may be reading it
            return ["-F", str(config)]
        known.write_text("\n".join([*lines, f"@cert-authority * {authority}"]))
        config.write_text(
            f"IdentityFile {self.key_of(key)}\nIdentitiesOnly yes\nUserKnownHostsFile {known}\n"
            "GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nBatchMode yes\n"
        )
        return ["-F", str(config)]

    async def run(self, program: str, key: str, *words: str, stdin: bytes = b"") -> "Done":
        """Run ssh, scp or sftp to its end."""
        process = await asyncio.create_subprocess_exec(
            program,
            *self.options(key),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SSH_AUTH_SOCK": ""},
        )
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(stdin)
        return Done(process.returncode or 0, out, err.decode())

    async def ssh(self, key: str, user: str, *words: str, stdin: bytes = b"") -> "Done":
        """`ssh -p PORT USER@host …`."""
        return await self.run("ssh", key, "-p", str(self.keeper.port), f"{user}@127.0.0.1", *words, stdin=stdin)

    async def jump(self, key: str, target: str, *words: str, stdin: bytes = b"") -> "Done":
        """`ssh -J PERSON@host:PORT TARGET …`; the person is the one whose key it is."""
        jump = ["-o", f"ProxyCommand=ssh {' '.join(self.options(key))} -p {self.keeper.port} -W %h:%p {key}@127.0.0.1"]
        return await self.run("ssh", key, *jump, target, *words, stdin=stdin)


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: bytes
    err: str


@functools.cache
def host_keys_made_before() -> dict[str, bytes]:
    """Files of host keys by name: making them takes longer than most tests."""
    with tempfile.TemporaryDirectory() as place:
        host_keys(Path(place))
        return {file.name: file.read_bytes() for file in Path(place, FOLDER).iterdir()}


def give_host_keys(state_dir: Path) -> None:
    """Put keys where a host would make some, unless it has them."""
    folder = state_dir / FOLDER
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
        for name, text in host_keys_made_before().items():
            (folder / name).touch(0o600)
            (folder / name).write_bytes(text)


@asynccontextmanager
async def open_door(folder: Path, *, visited: bool = True, **settings: Any) -> AsyncIterator[Door]:
    """A house whose SSH port is open until the block ends, and was visited before unless said otherwise."""
    chosen = settings_in(folder, **settings)
    give_host_keys(Path(chosen.state_dir))
    async with open_house(chosen) as house:
        host, here = house.host, Here()
        loops = Loops(host.clock)
        keeper = SshKeeper(host.settings, host.auth, host.db, loops, here)
        loops.run("ssh", keeper.listen)
        try:
            async with asyncio.timeout(SECONDS):
                while not keeper.port:
                    await asyncio.sleep(0.01)
                if visited:
                    await keeper.ready()
            yield Door(house, keeper, here, folder)
        finally:
            await loops.stop()


def at_the_door(folder: Path, work: Callable[[Door], Awaitable[None]], **settings: Any) -> None:
    """Run a test at a door of its own."""

    async def run() -> None:
        async with open_door(folder, **settings) as door:
            await work(door)

    asyncio.run(run())
