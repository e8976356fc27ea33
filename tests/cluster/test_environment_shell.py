"""A shell in an environment on the host: for programs and for browsers, and again after the connection broke."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from socket import SHUT_RDWR

import aiohttp
import pytest

from kohakuriver.model import codec
from kohakuriver.model import terminal as frames
from kohakuriver.model.stream_api import StartTerminal, TerminalOpened
from kohakuriver.model.terminal import Kind
from tests.cluster.cluster import Json
from tests.cluster.conftest import Client, on_docker
from tests.cluster.rig import Refused, Rig
from tests.cluster.test_environments import ENV, finish
from tests.docker_daemon import IMAGE, Daemon

pytestmark = [on_docker]
Socket = aiohttp.ClientWebSocketResponse


@pytest.fixture
def shop(cluster: Rig) -> Iterator[Rig]:
    """The cluster with an environment `shop`."""
    finish(cluster, cluster.ask("POST", ENV, {"name": "shop", "image": IMAGE}))
    yield cluster
    with suppress(Refused):
        cluster.ask("DELETE", f"{ENV}/shop")


def on_socket(rig: Rig, protocol: str, script: Callable[[Socket], Awaitable[None]], name: str = "shop") -> None:
    async def play() -> None:
        url = f"http://127.0.0.1:{rig.port}/ws/environment/{name}/terminal"
        async with (
            asyncio.timeout(60),
            aiohttp.ClientSession() as http,
            http.ws_connect(url, protocols=[protocol]) as socket,
        ):
            await script(socket)

    asyncio.run(play())


def start(**asked: object) -> bytes:
    return frames.frame(Kind.START, codec.encode_text(StartTerminal(**asked)).encode())  # type: ignore[arg-type]


async def to_the_end(socket: Socket) -> tuple[bytes, int | None]:
    """All that a program wrote, and its exit code."""
    written = b""
    async for message in socket:
        kind, payload = frames.split(message.data)
        if kind is Kind.EXIT:
            return written, frames.read_exit(payload)  # and hang up, as nothing more comes
        written += payload if kind in (Kind.OUTPUT, Kind.ERRORS) else b""
    return written, None


def test_a_program_gets_bytes_and_the_exit_code(shop: Rig) -> None:
    async def script(socket: Socket) -> None:
        await socket.send_bytes(start(argv=["sh", "-c", "cat; printf '\\377\\0'; exit 7"], tty=False))
        await socket.send_bytes(frames.frame(Kind.INPUT, bytes(range(256)) * 1000))
        await socket.send_bytes(frames.frame(Kind.END_INPUT))
        assert await to_the_end(socket) == (bytes(range(256)) * 1000 + b"\xff\0", 7)

    on_socket(shop, frames.BYTES, script)


def test_a_browser_gets_a_shell_of_the_size_it_says(shop: Rig) -> None:
    async def script(socket: Socket) -> None:
        await socket.send_str(json.dumps({"type": "resize", "rows": 33, "cols": 101}))
        await socket.send_str(json.dumps({"type": "input", "data": "stty size; exit 3\n"}))
        said: list[Json] = [json.loads(message.data) async for message in socket]
        assert "33 101" in "".join(each.get("data", "") for each in said)
        assert said[-1] == {"type": "exit", "code": 3}

    on_socket(shop, frames.TEXT, script)


def test_what_runs_in_it_ends_with_its_connection_and_with_a_killed_host(shop: Rig, docker_daemon: Daemon) -> None:
    def lives() -> bool:
        return "sleep 4711" in docker_daemon.cli("top", "kohakuriver-env-shop").stdout

    async def leave_abruptly(socket: Socket) -> None:
        await socket.send_bytes(start(argv=["sh", "-c", "sleep 4711"]))
        frames.split((await socket.receive()).data)
        while not lives():
            await asyncio.sleep(0.05)

    on_socket(shop, frames.BYTES, leave_abruptly)
    shop.until(lambda: not lives())

    async def lose_the_host(socket: Socket) -> None:
        await leave_abruptly(socket)
        shop.host.kill()

    on_socket(shop, frames.BYTES, lose_the_host)
    shop.host.start()
    shop.until(lambda: not lives())


def test_who_was_cut_off_goes_on_where_he_was(shop: Rig) -> None:
    script = "echo one; read word; echo $word; exit 4"
    opened: list[TerminalOpened] = []

    async def begin(socket: Socket) -> None:
        await socket.send_bytes(start(argv=["sh", "-c", script], tty=False))
        said = [frames.split((await socket.receive()).data) for _ in range(2)]
        opened.append(codec.decode(TerminalOpened, codec.loads(said[0][1])))
        assert said[1] == (Kind.OUTPUT, b"one\n")
        transport = socket.get_extra_info("socket")
        transport.shutdown(SHUT_RDWR)  # as when a network goes away

    async def go_on(socket: Socket) -> None:
        await socket.send_bytes(start(session=opened[0].session, received=4))
        await socket.send_bytes(frames.frame(Kind.INPUT, b"two\n"))
        assert await to_the_end(socket) == (b"two\n", 4)

    on_socket(shop, frames.BYTES, begin)
    on_socket(shop, frames.BYTES, go_on)


def test_a_stopped_or_missing_one_says_so(shop: Rig) -> None:
    async def refused(socket: Socket) -> None:
        await socket.send_bytes(start())
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE and message.data in (4404, 4409), message

    on_socket(shop, frames.BYTES, refused, name="nothing")
    shop.ask("POST", f"{ENV}/shop/stop")
    on_socket(shop, frames.BYTES, refused)


def test_a_person_prepares_it_by_a_command(shop: Rig, client: Client) -> None:
    done = client(
        "docker", "env", "shell", "--no-tty", "shop", "--", "sh", "-c", "echo made > /made; cat /made; exit 5"
    )
    assert (done.returncode, done.stdout) == (5, b"made\n"), done
    assert client("docker", "env", "shell", "shop", "--", "cat", "/made").stdout == b"made\n"
    shop.ask("POST", f"{ENV}/shop/stop")
    stopped = client("docker", "env", "shell", "shop", "--", "true")
    assert stopped.returncode == 5 and b"does not run" in stopped.stderr, stopped
