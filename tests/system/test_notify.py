"""Messages to the service manager, received by a real datagram socket, and the self-check that sends them."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kohakuriver.system.loops import Loops
from kohakuriver.system.notify import Notifier
from kohakuriver.system.watchdog import start_watchdog
from tests.manual_clock import ManualClock


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A service manager's end at a path or an abstract `@name`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("\0" + address[1:] if address.startswith("@") else address)
        ear.settimeout(5)
        yield ear


def heard(ear: socket.socket) -> str:
    return ear.recv(65_536).decode()


def heard_nothing(ear: socket.socket) -> bool:
    ear.setblocking(False)
    try:
        ear.recv(1)
    except BlockingIOError:
        return True
    return False


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@kohakuriver-test-{os.getpid()}"


def test_each_message_is_one_datagram_in_the_words_of_sd_notify(address: str) -> None:
    with listening(address) as ear:
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
        notifier.ready("listening on 8000")
        notifier.status("two nodes")
        notifier.watchdog()
        notifier.stopping()
        assert [heard(ear) for _ in range(4)] == [
            "READY=1\nSTATUS=listening on 8000",
            "STATUS=two nodes",
            "WATCHDOG=1",
            "STOPPING=1\nSTATUS=stopping",
        ]


def test_a_status_cannot_smuggle_another_assignment(address: str) -> None:
    with listening(address) as ear:
        Notifier(address).status("fine\nMAINPID=1\r\nREADY=1 \udcff")
        assert heard(ear) == "STATUS=fine MAINPID=1 READY=1 ?"


def test_the_watchdog_interval_is_half_of_what_the_manager_waits() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.from_environment(environ).watchdog_interval_seconds == 30.0


def test_the_variables_are_taken_so_that_no_child_inherits_them() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier.from_environment(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "60000000"},
        {"NOTIFY_SOCKET": "/run/x"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_watches_unless_the_manager_says_so_to_this_process(environ: dict[str, str]) -> None:
    assert Notifier.from_environment(environ).watchdog_interval_seconds is None


def test_without_a_manager_nothing_is_sent_and_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}):
        Notifier.from_environment(dict(environ)).ready("x")
    assert caplog.text == ""


def test_a_manager_that_cannot_be_reached_is_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for address in (str(tmp_path / "gone"), "/" + "x" * 200):
        caplog.clear()
        notifier = Notifier(address)
        notifier.ready("x")
        notifier.watchdog()
        assert len(caplog.records) == 1 and address in caplog.text


def test_a_manager_that_does_not_read_never_blocks_the_service(tmp_path: Path) -> None:
    address = str(tmp_path / "deaf")
    with listening(address):
        notifier = Notifier(address)
        for _ in range(2_000):  # many more than a socket's queue holds
            notifier.watchdog()


class SelfCheck:
    """A check that passes, fails or hangs as told."""

    def __init__(self) -> None:
        self.fails = False
        self.hangs = False

    async def __call__(self) -> None:
        if self.fails:
            raise OSError("the store does not answer")
        if self.hangs:
            await asyncio.Event().wait()


def test_the_watchdog_is_fed_while_the_check_passes_and_starves_when_it_fails_or_hangs(tmp_path: Path) -> None:
    async def script(ear: socket.socket) -> None:
        clock, check = ManualClock(), SelfCheck()
        loops = Loops(clock, jitter=lambda: 0.5)
        start_watchdog(loops, clock, Notifier(str(tmp_path / "n"), watchdog_interval_seconds=15.0), check)
        await clock.advance(14)
        assert heard(ear) == "WATCHDOG=1"
        assert heard_nothing(ear)
        await clock.advance(1)
        assert heard(ear) == "WATCHDOG=1"
        check.fails = True
        await clock.advance(60)
        assert heard_nothing(ear)
        check.fails = False
        await clock.advance(60)
        assert heard(ear) == "WATCHDOG=1"
        check.hangs = True
        await clock.advance(15)
        while not heard_nothing(ear):
            pass
        await clock.advance(600)
        assert heard_nothing(ear)
        await loops.stop()

    with listening(str(tmp_path / "n")) as ear:
        asyncio.run(script(ear))


def test_the_watchdog_starves_while_a_loop_is_stalled_and_the_log_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(ear: socket.socket) -> None:
        clock, release = ManualClock(), asyncio.Event()

        async def hang() -> None:
            await release.wait()

        loops = Loops(clock)
        loops.start("dispatch", hang, 1)
        start_watchdog(loops, clock, Notifier(str(tmp_path / "n"), watchdog_interval_seconds=15.0), SelfCheck())
        await clock.advance(31)  # fed at 0, 15 and 30
        assert [heard(ear) for _ in range(3)] == ["WATCHDOG=1"] * 3
        await clock.advance(100)
        assert heard_nothing(ear) and "names=dispatch" in caplog.text
        release.set()
        await clock.advance(15)
        assert heard(ear) == "WATCHDOG=1"
        await loops.stop()

    with listening(str(tmp_path / "n")) as ear:
        asyncio.run(script(ear))


def test_no_loop_is_started_when_nobody_watches() -> None:
    async def script() -> None:
        loops = Loops(ManualClock())
        start_watchdog(loops, ManualClock(), Notifier(None), SelfCheck())
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(script())
