"""What the tests of the client share: a made-up host, and the client in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kohakuriver.client import run
from tests.client.made_up_host import MadeUpHost, made_up_host

PROGRAM = [sys.executable, "-c", "import sys; from kohakuriver.client import run; sys.exit(run(sys.argv[1:]))"]


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


River = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test: what the person at this machine is logged in to is not our business."""
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    for name in ("KOHAKURIVER_TOKEN", "KOHAKURIVER_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUpHost]:
    """A made-up host to which the environment leads."""
    with made_up_host() as made:
        monkeypatch.setenv("KOHAKURIVER_HOST", "127.0.0.1")
        monkeypatch.setenv("KOHAKURIVER_PORT", str(made.port))
        yield made


@pytest.fixture
def river(capsys: pytest.CaptureFixture[str]) -> River:
    """Runs a command in this process."""

    def run_here(*words: str) -> Outcome:
        capsys.readouterr()
        code = run(list(words))
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run_here


def spawn(*words: str, **options: object) -> "subprocess.Popen[bytes]":
    """Start a command in a process of its own; it has a pipe for each stream unless `options` say otherwise."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *words], **(pipes | {"env": dict(os.environ)} | options))  # type: ignore[call-overload, no-any-return]
