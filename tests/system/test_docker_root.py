"""The files of containers on a real daemon, running and not; nothing stays mounted, whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from kohakuriver.model.errors import Conflict, EngineFailed, NotAllowed, NotFound
from kohakuriver.system import docker_root
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_root import open_root
from kohakuriver.system.overlay_mount import layers_at, open_layers
from kohakuriver.system.rooted import Owner, Root
from kohakuriver.system.rooted_writing import Writing
from tests.docker_daemon import IMAGE, Daemon

pytestmark = pytest.mark.docker
Script = Callable[[DockerClient], Awaitable[None]]
NAME = "files-of-this"


@pytest.fixture
def daemon(docker_daemon: Daemon) -> Iterator[Daemon]:
    yield docker_daemon
    docker_daemon.remove_containers()


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def play(daemon: Daemon, script: Script) -> None:
    async def work() -> None:
        client = DockerClient(daemon.socket)
        await client.open()
        try:
            await script(client)
        finally:
            await client.close()

    asyncio.run(work())


def docker(daemon: Daemon, *words: str) -> str:
    said = daemon.cli(*words)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def content(root: Root, path: str) -> bytes:
    with open(root.open_file(path), "rb") as file:
        return file.read()


def write(root: Root, path: str, data: bytes) -> None:
    writing = Writing.begin(root, path)
    writing.write(data)
    writing.finish()


def stopped(daemon: Daemon, *options: str) -> None:
    docker(daemon, "run", "--name", NAME, "--network", "none", *options, IMAGE, "sh", "-c", "echo kept > /root/kept")


def test_what_stopped_is_read_and_written_and_starts_again_with_it(daemon: Daemon) -> None:
    async def script(client: DockerClient) -> None:
        before = mounts()
        with await open_root(client, NAME, writable=False) as root:
            assert content(root, "/root/kept") == b"kept\n"
            with pytest.raises(NotAllowed, match="read-only"):
                write(root, "/root/new", b"")
            assert mounts() == before, "nobody else sees it"
        with await open_root(client, NAME, writable=True) as root:
            write(root, "/root/new", b"new")
            root.delete("/bin/vi")
            root.make_directory("/a/b", parents=True)
        with await open_root(client, NAME, writable=False) as root:
            assert content(root, "/root/new") == b"new"
            assert "vi" not in [entry.name for entry in root.list("/bin").entries]

    stopped(daemon)
    play(daemon, script)
    docker(daemon, "commit", NAME, "files:seen")
    seen = docker(daemon, "run", "--rm", "--network", "none", "files:seen", "cat", "/root/new")
    assert seen == "new"
    docker(daemon, "start", NAME)
    docker(daemon, "rmi", "files:seen")


def test_links_of_what_stopped_stay_inside_and_the_kernels_directories_are_shut(daemon: Daemon) -> None:
    async def script(client: DockerClient) -> None:
        with await open_root(client, NAME, writable=False) as root:
            for path in ("/root/link", "/root/up", "../../../../etc/shadow"):
                with pytest.raises(NotFound):
                    content(root, path)
            for path in ("/dev", "/proc", "/sys", "/root/../sys"):
                with pytest.raises(NotAllowed):
                    root.stat(path)

    links = "ln -s /etc/shadow /root/link; ln -s ../../../../../etc/shadow /root/up"
    docker(daemon, "run", "--name", NAME, "--network", "none", IMAGE, "sh", "-c", links)
    play(daemon, script)


def test_many_layers_fit(daemon: Daemon) -> None:
    """A page of options holds as many as Docker makes."""
    docker(daemon, "run", "--name", NAME, "--network", "none", IMAGE, "true")
    upper = Path(docker(daemon, "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", NAME))
    layers = layers_at(upper)
    assert all(len(name) < 30 for name in layers.lower)
    assert len(",".join(name.ljust(28, "x") for name in ["l"] * 125)) + 200 < os.sysconf("SC_PAGE_SIZE")
    descriptor = open_layers(layers, writable=False)
    assert "root" in os.listdir(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.mark.parametrize(
    ("user", "wanted"),
    [("", (0, 0)), ("1234", (1234, 0)), ("1234:4321", (1234, 4321)), ("root", (0, 0)), ("nobody-here", (0, 0))],
)
def test_what_is_new_belongs_to_the_user_of_the_container(daemon: Daemon, user: str, wanted: tuple[int, int]) -> None:
    async def script(client: DockerClient) -> None:
        with await open_root(client, NAME, writable=False) as root:
            assert root.owner == Owner(*wanted)
        if user == "nobody-here":
            return
        docker(daemon, "start", NAME)
        with await open_root(client, NAME, writable=False) as root:
            assert root.owner == Owner(*wanted)

    options = ["--user", user] if user else []
    docker(daemon, "create", "--name", NAME, "--network", "none", *options, IMAGE, "sleep", "1000")
    play(daemon, script)


def test_a_paused_container_has_its_files_and_one_that_is_not_there_has_none(daemon: Daemon) -> None:
    async def script(client: DockerClient) -> None:
        with await open_root(client, NAME, writable=True) as root:
            assert "root" in [entry.name for entry in root.list("/").entries]
        with pytest.raises(NotFound):
            await open_root(client, "nothing-of-that-name", writable=True)

    docker(daemon, "run", "-d", "--name", NAME, "--network", "none", IMAGE, "sleep", "1000")
    docker(daemon, "pause", NAME)
    play(daemon, script)
    docker(daemon, "unpause", NAME)


def test_the_number_of_a_process_that_ended_is_never_taken_for_the_containers(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(client: DockerClient) -> None:
        asked = docker_root._facts
        answers: list[str] = []

        async def facts(client: DockerClient, name: str) -> object:
            found = await asked(client, name)
            if answers:
                docker(daemon, "kill", NAME)
                found = await asked(client, name)
            answers.append(name)
            return found

        monkeypatch.setattr(docker_root, "_facts", facts)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Conflict, match="ended just now"):
            await open_root(client, NAME, writable=False)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # a connection to the daemon may stay open

    docker(daemon, "run", "-d", "--name", NAME, "--network", "none", IMAGE, "sleep", "1000")
    play(daemon, script)


def test_another_storage_driver_is_told_as_what_it_is(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(client: DockerClient) -> None:
        asked = docker_root._facts

        async def facts(client: DockerClient, name: str) -> object:
            return await asked(client, name) | {"GraphDriver": {"Name": "zfs", "Data": {"Dataset": "x"}}}

        monkeypatch.setattr(docker_root, "_facts", facts)
        with pytest.raises(EngineFailed, match="zfs"):
            await open_root(client, NAME, writable=False)

    stopped(daemon)
    play(daemon, script)


HOLDER = """
import sys, time
from pathlib import Path
from kohakuriver.system.overlay_mount import layers_at, open_layers
open_layers(layers_at(Path(sys.argv[1])), True)
print("mounted", flush=True)
time.sleep(1000)
"""


def test_nothing_stays_mounted_when_the_program_is_killed(daemon: Daemon) -> None:
    stopped(daemon)
    upper = docker(daemon, "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", NAME)
    before = mounts()
    with subprocess.Popen([sys.executable, "-c", HOLDER, upper], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"mounted\n"
        own = Path(f"/proc/{holder.pid}/mounts").read_text().splitlines()
        assert own == before == mounts(), "not even its own namespace has it"
        holder.send_signal(signal.SIGKILL)
    docker(daemon, "start", "-a", NAME)
    docker(daemon, "rm", NAME)
    assert not Path(upper).exists()
