"""Stock OpenSSH into real containers that have nothing but busybox: a host, a runner, and keys of people."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import kohakuriver
from kohakuriver.model.access import Role
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.app import running_runner
from kohakuriver.system.clock import SystemClock
from tests.bench.ssh import SERVE, make_keys
from tests.cluster.in_process import MadeUpMachine
from tests.docker_daemon import IMAGE, Daemon
from tests.host.auth.house import Person, open_house, settings_in
from tests.host.ssh.doors import SECONDS, Done, Door, Here
from tests.ports import free_port

pytestmark = pytest.mark.docker
ASLEEP = "ps | grep -v 'sh -c' | grep '[s]leep 4321'"
RAW = bytes(range(256)) * 40


@asynccontextmanager
async def real_door(folder: Path, daemon: Daemon, mounts: list[str]) -> AsyncIterator[Door]:
    """A host whose SSH port is open, and a runner with a real engine."""
    settings = settings_in(folder, host_port=free_port(), host_ssh_proxy_port=free_port())
    at_runner = RunnerSettings(
        host_address="127.0.0.1",
        host_port=settings.host_port,
        runner_hostname="alpha",
        runner_bind_ip="127.0.0.1",
        runner_address="127.0.0.1",
        runner_port=free_port(),
        state_dir=str(folder / "runner"),
        cluster_secret_file=settings.cluster_secret_file,
        docker_socket=daemon.socket,
        initial_base_image=IMAGE,
        task_shm_bytes=64_000_000,
        additional_mounts=mounts,
    )
    async with open_house(settings) as house, running_runner(at_runner, None, SystemClock(), MadeUpMachine()):
        async with asyncio.timeout(SECONDS):
            while not house.host.ssh.port:
                await asyncio.sleep(0.02)
            await house.host.ssh.ready()
        yield Door(house, house.host.ssh, Here(), folder)


Work = Callable[[Door, Person, str], Awaitable[None]]
WAIT: dict[str, object] = {"command": "sleep", "arguments": ["600"]}


def with_door(
    folder: Path, daemon: Daemon, work: Work, mounts: Sequence[str] = (), spec: Mapping[str, object] = WAIT
) -> None:
    """Run a test with somebody who has a key and a container that waits, or does what `spec` says."""

    async def run() -> None:
        async with real_door(folder, daemon, list(mounts)) as door:
            bob = await door.house.person("bob", Role.USER)
            await door.admit(bob)
            said = await door.house.submit(bob, **spec)
            task = said.body["task_ids"][0]
            boss = await door.house.person("ann", Role.ADMIN)
            await door.house.ask("POST", f"/api/tasks/{task}/approve", boss, {})
            async with asyncio.timeout(SECONDS):
                while (await door.house.get(f"/api/tasks/{task}", bob))["status"] != "running":
                    await asyncio.sleep(0.05)
            try:
                await work(door, bob, task)
            finally:
                await door.house.ask("POST", f"/api/tasks/{task}/kill", bob, {})
                async with asyncio.timeout(SECONDS):
                    while daemon.containers("kohakuriver.cluster"):
                        await asyncio.sleep(0.05)

    asyncio.run(run())


def test_commands_run_with_their_bytes_and_their_codes(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        for reach in (door.ssh, door.jump):
            target = task if reach == door.ssh else f"root@{task}"
            done = await reach("bob", target, "cat; echo err >&2; pwd; id -un; exit 7", stdin=RAW)
            assert (done.code, done.out, done.err) == (7, RAW + b"/root\nroot\n", "err\n")
            killed = await reach("bob", target, "kill -9 $$")
            assert killed.code == 137
        unknown = await door.ssh("bob", f"{task}+nobody-of-that-name", "true")
        assert unknown.code == 126 and "nobody-of-that-name" in unknown.err

    with_door(tmp_path, docker_daemon, work)


def test_a_terminal_has_the_size_that_it_is_given(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        done = await door.ssh("bob", task, "-tt", "tty; echo $TERM; stty size; exit 3")
        assert done.code == 3 and b"/dev/pts/" in done.out
        shell = await door.ssh("bob", task, "-tt", stdin=b"echo $((6 * 7)); exit 5\n")
        assert shell.code == 5 and b"42" in shell.out

    with_door(tmp_path, docker_daemon, work)


def test_files_go_in_and_out_by_scp_and_sftp(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        (tmp_path / "up").write_bytes(RAW * 30)
        port = str(door.keeper.port)
        done = await door.run("scp", "bob", "-P", port, str(tmp_path / "up"), f"{task}@127.0.0.1:there")
        assert done.code == 0, done
        assert (await door.ssh("bob", task, "wc -c < /root/there")).out == b"307200\n"
        done = await door.run("scp", "bob", "-P", port, f"{task}@127.0.0.1:~/there", str(tmp_path / "down"))
        assert done.code == 0 and (tmp_path / "down").read_bytes() == RAW * 30
        for way in ((str(tmp_path / "up"), f"{task}@127.0.0.1:old"), (f"{task}@127.0.0.1:old", str(tmp_path / "old"))):
            done = await door.run("scp", "bob", "-O", "-P", port, *way)
            assert done.code == 0, done
        assert (tmp_path / "old").read_bytes() == RAW * 30
        batch = b"mkdir d\nrename there d/it\nls -l d\nrm d/it\nrmdir d\n"
        done = await door.run("sftp", "bob", "-P", port, "-b", "-", f"{task}@127.0.0.1", stdin=batch)
        assert done.code == 0 and b"it" in done.out

    with_door(tmp_path, docker_daemon, work)


def test_ports_inside_are_reached_and_nothing_of_the_node(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        await door.ssh("bob", task, "(while true; do echo hello | nc -l -p 7777; done) >/dev/null 2>&1 </dev/null &")
        async with asyncio.timeout(SECONDS):
            while (got := (await door.ssh("bob", task, "-W", "127.0.0.1:7777")).out) != b"hello\n":
                await asyncio.sleep(0.1)
        assert got == b"hello\n"
        api = await door.ssh("bob", task, "-W", f"127.0.0.1:{door.house.host.settings.host_port}")
        assert api.code == 255, "the node's own loopback is not the workload's"

    with_door(tmp_path, docker_daemon, work)


def test_nothing_is_left_of_sessions_that_were_cut(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            process = await asyncio.create_subprocess_exec(
                "ssh", *door.options("bob"), "-p", str(door.keeper.port), f"{task}@127.0.0.1", "sleep 4321"
            )
            async with asyncio.timeout(SECONDS):
                while (await door.ssh("bob", task, ASLEEP)).out == b"":
                    await asyncio.sleep(0.05)
            process.kill()
            await process.wait()
        async with asyncio.timeout(SECONDS):
            while (await door.ssh("bob", task, ASLEEP)).out != b"":
                await asyncio.sleep(0.05)
            while len(os.listdir("/proc/self/fd")) > before + 3:
                await asyncio.sleep(0.05)

    with_door(tmp_path, docker_daemon, work)


def test_the_client_is_in_a_workload_without_a_key(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        home = tmp_path / "home"
        env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(kohakuriver.__file__).parent.parent),
            "KOHAKURIVER_HOST": "127.0.0.1",
            "KOHAKURIVER_PORT": str(door.house.host.settings.host_port),
            "KOHAKURIVER_TOKEN": bob.headers["Authorization"].removeprefix("Bearer "),
        }

        async def run(*words: str, stdin: bytes = b"") -> Done:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate(stdin)
            return Done(process.returncode or 0, out, err.decode())

        program = (sys.executable, "-m", "kohakuriver", "ssh")
        done = await run(*program, task, "--", "cat; exit 7", stdin=RAW)
        assert (done.code, done.out, done.err) == (7, RAW, "")
        assert (await run(*program, task, "--", "printf", "%s|", "a b", "c")).out == b"a b|c|"
        gone = await run(*program, "12345", "--", "true")
        assert gone.code == 255 and "there is no task 12345" in gone.err
        assert (await run(*program, "config", "--write")).code == 0
        config = ("-F", str(home / ".ssh/config"))  # ssh looks for the real home's
        (tmp_path / "up").write_bytes(RAW)
        assert (await run("scp", *config, str(tmp_path / "up"), f"{task}.kohakuriver:up")).code == 0
        [ours] = (home / ".kohakuriver/ssh").glob("*/config")
        for name in (f"{task}.kohakuriver", f"{task}.{ours.parent.name}.kohakuriver"):
            done = await run("ssh", *config, name, "cat up")
            assert (done.out, done.err) == (RAW, "")

    with_door(tmp_path, docker_daemon, work)


def test_a_workloads_own_server_and_programs_are_used_where_it_has_them(tmp_path: Path, docker_daemon: Daemon) -> None:
    keys = make_keys(tmp_path)
    mounts = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", f"{keys}:/keys:ro"]  # what the image lacks

    async def work(door: Door, bob: Person, task: str) -> None:
        host_key = (keys / "host.pub").read_text()
        door.options("bob")
        with (tmp_path / "known_hosts").open("a") as known:
            known.write(f"\n{task} {host_key}")
        through = f"ProxyCommand=ssh {' '.join(door.options('bob'))} -p {door.keeper.port} -W %h:%p bob@127.0.0.1"
        own = ("-o", through, "-i", str(keys / "id"), f"root@{task}")
        async with asyncio.timeout(SECONDS):
            while (done := await door.run("ssh", "bob", *own, "echo $SSH_CONNECTION; exit 4")).code == 255:
                await asyncio.sleep(0.1)
        assert done.code == 4 and b" 22" in done.out, "only a server inside says where one comes from"
        for number in range(20):
            path = tmp_path / "tree" / str(number % 3) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(RAW[number:])
        by_ssh = " ".join(("ssh", *door.options("bob"), "-p", str(door.keeper.port)))
        there = f"{task}@127.0.0.1:/root/tree/"
        for source, target in ((f"{tmp_path}/tree/", there), (there, f"{tmp_path}/back/")):
            process = await asyncio.create_subprocess_exec("rsync", "-a", "-e", by_ssh, source, target)
            async with asyncio.timeout(SECONDS):
                assert await process.wait() == 0
        found = [path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*") if path.is_file()]
        assert len(found) == 20
        assert all((tmp_path / "back" / path).read_bytes() == (tmp_path / "tree" / path).read_bytes() for path in found)

    with_door(tmp_path, docker_daemon, work, mounts, {"command": "sh", "arguments": ["-c", SERVE]})


def test_many_connections_at_once_through_one_forward_are_whole(tmp_path: Path, docker_daemon: Daemon) -> None:
    async def work(door: Door, bob: Person, task: str) -> None:
        listening, page = free_port(), os.urandom(1_000_000)
        assert (await door.ssh("bob", task, "cat > /root/page; httpd -p 7777 -h /root", stdin=page)).code == 0
        forward = ("-N", "-L", f"127.0.0.1:{listening}:localhost:7777")
        process = await asyncio.create_subprocess_exec(
            "ssh", *door.options("bob"), "-p", str(door.keeper.port), *forward, f"{task}@127.0.0.1"
        )

        async def fetch() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(b"GET /page HTTP/1.0\r\n\r\n")
            answer = await reader.read(-1)
            writer.close()
            return answer.partition(b"\r\n\r\n")[2]

        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        await fetch()
                        break
                    except OSError:
                        await asyncio.sleep(0.1)
                found = await asyncio.gather(*(fetch() for _ in range(24)))
            assert [each == page for each in found] == [True] * 24
        finally:
            process.terminate()
            await process.wait()

    with_door(tmp_path, docker_daemon, work)
