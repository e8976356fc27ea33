"""The two commands as people type them: a token made on the head node, a node that joins with it and is at work."""

import asyncio
import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kohakuriver.model import codec, runner_api
from kohakuriver.model.errors import NotAllowed, NotFound, NotLoggedIn
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import membership
from kohakuriver.runner.app import running_runner
from kohakuriver.runner.membership import Membership
from kohakuriver.runner.state import Runner
from kohakuriver.system.clock import SystemClock
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.fake_engine import FakeEngine, FakeNode
from tests.host.joining.machines import Lab, in_lab
from tests.runner.stage import BigMachine

TOP = Path(__file__).resolve().parents[3]
KNOWN = Membership(cluster_id="c", hostname="alpha", host="10.0.0.1", port=9000, key="ab" * 32)


def start(words: list[str], folder: Path, settings: dict[str, object]) -> "subprocess.Popen[str]":
    """A command in a process of its own, at home in a folder."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    given = {f"KOHAKURIVER_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), **given}
    command = [sys.executable, "-m", "kohakuriver", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=TOP, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


async def said(words: list[str], folder: Path, settings: dict[str, object], lines: str = "") -> tuple[int, str, str]:
    """Exit code and what a command printed."""
    process = await asyncio.to_thread(start, words, folder, settings)
    out, err = await asyncio.to_thread(process.communicate, lines, 60)
    return process.returncode, out, err


def host_settings(lab: Lab, folder: Path) -> dict[str, object]:
    return {"state_dir": folder / "host", "host_port": urlsplit(lab.host.url).port}


async def new_token(lab: Lab, folder: Path, *options: str) -> str:
    code, out, err = await said(["host", "join-token", *options], folder, host_settings(lab, folder))
    assert code == 0 and out.count("\n") == 1, err
    return out.strip()


@asynccontextmanager
async def runner_in(folder: Path) -> AsyncIterator[Runner]:
    settings = RunnerSettings(
        runner_hostname="alpha",
        runner_port=0,
        state_dir=str(folder / "runner"),
        cluster_secret_file=str(folder / "none"),
        resource_check_interval_seconds=30.0,
    )
    clock = SystemClock()
    node = FakeNode(clock=clock)
    async with running_runner(settings, FakeEngine(node, "c", "alpha"), clock, BigMachine()) as runner:
        yield runner


def test_a_node_joins_with_two_commands_and_is_at_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(lab: Lab) -> None:
        token = await new_token(lab, tmp_path, "--uses", "2", "--ttl", "1h")
        port, state = urlsplit(lab.host.url).port, tmp_path / "runner"
        words = ["runner", "join", f"127.0.0.1:{port}", token]
        settings: dict[str, object] = {"state_dir": state, "runner_hostname": "alpha"}
        code, out, err = await said(words, tmp_path, settings)
        assert code == 0 and "alpha has joined cluster" in out and "kohakuriver runner" in out, err
        assert stat.S_IMODE((state / "host_key").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        key = lab.host.keys.to("alpha")
        async with runner_in(tmp_path) as runner, asyncio.timeout(20):
            while "alpha" not in lab.host.registry.nodes:
                await asyncio.sleep(0.01)
            health = await lab.host.scheduler.peers.at("alpha", runner.url).call(runner_api.HEALTH, Nothing())
            assert health.hostname == "alpha"
            for wrong in (lab.host.keys.shared, bytes(32)):
                with pytest.raises(NotLoggedIn):
                    await Peer(lab.house.http, runner.url, Signer("host", wrong or b"", SteadyTime())).call(
                        runner_api.HEALTH, Nothing()
                    )
            again = ["runner", "join", f"127.0.0.1:{port}", "-"]
            code, out, err = await said(again, tmp_path, settings, f"{token}\n")  # while it runs: it proves itself
            assert code == 0, err
            assert lab.host.keys.to("alpha") != key
        shown = out + err + caplog.text + str(await lab.house.trail())
        assert token not in shown and token.split("_")[2] not in shown and key.hex() not in shown

    with caplog.at_level(logging.DEBUG):
        in_lab(tmp_path, work)


def test_the_host_makes_tokens_while_nobody_is_logged_in_and_only_for_its_own_user(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await new_token(lab, tmp_path, "--node", "beta")
        assert token.startswith("krj_")
        made = await lab.house.trail(action="node.token.create")
        assert [(entry["user"], "node=beta" in entry["detail"]) for entry in made] == [("host:console", True)]
        settings = host_settings(lab, tmp_path)
        code, _, err = await said(["host", "join-token"], tmp_path, settings | {"state_dir": tmp_path / "nobody"})
        assert code == 3 and "no host has run here" in err
        (tmp_path / "host" / "join_key").chmod(0o644)
        code, _, err = await said(["host", "join-token"], tmp_path, settings)
        assert code == 4 and "chmod 600" in err

    in_lab(tmp_path, work)


def test_a_host_that_does_not_run_is_told(tmp_path: Path) -> None:
    async def nothing(lab: Lab) -> None:
        pass

    in_lab(tmp_path, nothing)
    code, _, err = asyncio.run(said(["host", "join-token"], tmp_path, {"state_dir": tmp_path / "host", "host_port": 1}))
    assert code == 6 and "start it first" in err


def test_a_wrong_token_is_told_without_being_repeated(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        place, wrong = f"127.0.0.1:{urlsplit(lab.host.url).port}", f"krj_5_{'cd' * 32}"
        settings: dict[str, object] = {"state_dir": tmp_path / "runner", "runner_hostname": "alpha"}
        code, out, err = await said(["runner", "join", place, wrong], tmp_path, settings)
        assert code == 4 and "does not know this join token" in err
        for token, complaint in ((wrong[:-2], "not a join token"), ("", "not a join token")):
            code, out, err = await said(["runner", "join", place, "-"], tmp_path, settings, f"{token}\n")
            assert code == 2 and complaint in err and "cdcd" not in out + err
        assert not (tmp_path / "runner").exists()
        code, _, err = await said(["runner", "join", "127.0.0.1:1", wrong], tmp_path, settings)
        assert code == 6 and "cdcd" not in err

    in_lab(tmp_path, work)


def test_the_token_does_not_stand_in_the_list_of_processes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        token = f"krj_5_{'ef' * 32}"
        words = ["runner", "join", f"127.0.0.1:{silent.getsockname()[1]}", token]
        process = start(words, tmp_path, {"state_dir": tmp_path / "runner", "runner_hostname": "alpha"})
        silent.settimeout(30)
        connection, _ = silent.accept()
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"join" in shown and b"efef" not in shown
        received = connection.recv(65536)
        assert received.startswith(b"POST /api/nodes/join") and b"efef" not in received
        process.kill()
        process.communicate()
        connection.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    settings = RunnerSettings(runner_hostname="alpha", state_dir=str(tmp_path / "runner"))
    path = membership.keep(settings, KNOWN)
    path.chmod(mode)
    with pytest.raises(NotAllowed, match="chmod 600"):
        membership.belonging(settings)


def test_the_key_says_where_the_host_is_unless_the_settings_do(tmp_path: Path) -> None:
    settings = RunnerSettings(runner_hostname="alpha", state_dir=str(tmp_path / "runner"))
    with pytest.raises(NotFound, match="runner join HOST TOKEN"):
        membership.belonging(settings)
    membership.keep(settings, KNOWN)
    found = membership.belonging(settings)
    assert (found.settings.host_address, found.settings.host_port) == ("10.0.0.1", 9000)
    assert found.key == bytes.fromhex(KNOWN.key) and KNOWN.key not in repr(KNOWN) and found.key.hex() not in repr(found)
    told = RunnerSettings(runner_hostname="alpha", state_dir=settings.state_dir, host_address="head", host_port=8000)
    assert membership.belonging(told).settings == told
    renamed = RunnerSettings(runner_hostname="beta", state_dir=settings.state_dir)
    with pytest.raises(NotAllowed, match="joined as alpha, and is called beta now"):
        membership.belonging(renamed)


@pytest.mark.parametrize("text", ["", "{}", "[1]", codec.encode_text(KNOWN)[:-5]])
def test_a_key_file_that_is_something_else_is_told(tmp_path: Path, text: str) -> None:
    settings = RunnerSettings(runner_hostname="alpha", state_dir=str(tmp_path))
    path = membership.file_of(settings)
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(NotAllowed, match="join again"):
        membership.belonging(settings)
