"""The entry: it chooses the program, loads only that, and turns errors into exit codes."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from kohakuriver import __main__ as entry
from kohakuriver import __version__
from kohakuriver.model import errors
from tests.ports import free_port

TOP = Path(__file__).resolve().parents[2]
HEAVY = (
    "aiohttp",
    "docker",
    "asyncssh",
    "pyroute2",
    "bcrypt",
    "asyncio",
    "sqlite3",
    "kohakuriver.host",
    "kohakuriver.runner",
)
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "HOME": "/nonexistent"}


def kohakuriver(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kohakuriver", *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False)


def run_main(monkeypatch: pytest.MonkeyPatch, does: object) -> int:
    """Run the entry with a program that does so."""
    stand_in = ModuleType("kohakuriver.programs.version")
    stand_in.run = does  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kohakuriver.programs.version", stand_in)
    monkeypatch.setattr(sys, "argv", ["kohakuriver", "version"])
    return entry.main()


def raising(error: BaseException) -> object:
    def does(arguments: list[str]) -> int:
        raise error

    return does


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_one_line(word: str) -> None:
    ended = kohakuriver(word)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"kohakuriver {__version__} (Python 3.") and ended.stdout.count("\n") == 1


def test_the_version_is_json_for_programs() -> None:
    ended = kohakuriver("version", "--json")
    assert ended.returncode == 0 and json.loads(ended.stdout)["version"] == __version__


@pytest.mark.parametrize(
    "words",
    ["host --foo", "host join-token --uses 0", "host tls foo", "runner extra", "runner join", "dev --nodes x", "config",
     "demo --engine podman", "docs a b", "install", "uninstall --bogus host", "cleanup --foo", "version x"],
)  # fmt: skip
def test_a_wrong_word_costs_one_line_that_says_where_help_is(words: str) -> None:
    program = entry.PROGRAMS[words.split()[0]]
    with pytest.raises(errors.BadRequest, match=r"\(see `kohakuriver .+ --help`\)$"):
        import_module(f"kohakuriver.programs.{program}").run(words.split())


def test_the_exit_code_of_the_program_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, lambda arguments: 42) == 42


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RiverError("it failed"), 1),
        (errors.BadRequest("it failed"), 2),
        (errors.NotFound("it failed"), 3),
        (errors.NotAllowed("it failed"), 4),
        (errors.Conflict("it failed"), 5),
        (errors.HostUnreachable("it failed"), 6),
        (OSError("it failed"), 1),
        (OSError(98, "it failed"), 1),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, raising(error)) == code
    assert capsys.readouterr().err == "kohakuriver: it failed\n"


def test_an_error_of_several_lines_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(monkeypatch, raising(errors.Conflict("alpha: busy\nbeta: gone")))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(monkeypatch, raising(ZeroDivisionError()))


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(monkeypatch, raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_quiet() -> None:
    script = f"{sys.executable} -m kohakuriver docs api | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stderr == ""
    assert ended.stdout in ("141\n", "0\n")  # 0 when everything was written before the reader went


def test_a_closed_pipe_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys, types; from kohakuriver import __main__ as entry\n"
        "made = types.ModuleType('made'); made.run = lambda arguments: print('x' * 1_000_000) or 0\n"
        "sys.modules['kohakuriver.programs.version'] = made; sys.argv = ['kohakuriver', 'version']\n"
        "sys.exit(entry.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout and child.stderr
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 141)


@pytest.mark.parametrize("words", [("--help",), ("task", "list"), ("node", "list", "--json"), ("version",), ("docs",)])
def test_ordinary_commands_load_nothing_heavy(words: tuple[str, ...]) -> None:
    script = (
        "import sys; from kohakuriver.__main__ import main\n"
        f"sys.argv = ['kohakuriver', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = ENVIRONMENT | {"KOHAKURIVER_PORT": "9"}  # nobody listens there
    ended = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout.splitlines()[-1].strip() == "loaded:", ended.stderr


@pytest.mark.parametrize("program", ["host", "runner"])
def test_a_wrong_setting_stops_a_program_before_it_serves(program: str, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text("\nLOG_LEVEL = 3\n")
    ended = kohakuriver(program, "--config", str(file))
    assert ended.returncode == 2
    assert ended.stderr == f"kohakuriver: {file}:2: LOG_LEVEL: expected text, got a whole number\n"


@pytest.mark.parametrize("program", ["host", "runner"])
def test_the_flags_of_a_program_are_its_settings(program: str) -> None:
    ended = kohakuriver(program, "--help")
    assert ended.returncode == 0
    assert (
        "--config FILE" in ended.stdout and "--host-port VALUE" in ended.stdout and "--log-level VALUE" in ended.stdout
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = kohakuriver("host", "--config", str(tmp_path / "no.py"))
    assert (ended.returncode, ended.stderr) == (
        3,
        f"kohakuriver: {tmp_path}/no.py: there is no such configuration file\n",
    )


def test_a_source_tree_cannot_install_itself() -> None:
    ended = kohakuriver("install", "runner", "--dry-run")
    assert ended.returncode == 2 and "only the built kohakuriver.pyz can install itself" in ended.stderr


def test_uninstall_can_be_tried_dry(tmp_path: Path) -> None:
    ended = kohakuriver("uninstall", "runner", "--dry-run", "--root", str(tmp_path))
    assert ended.returncode == 0 and "kohakuriver-runner.service" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_others_can_read_stops_the_host_in_one_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("00" * 32)
    secret.chmod(0o644)
    ended = kohakuriver("host", "--state-dir", str(tmp_path / "state"), "--cluster-secret-file", str(secret))
    assert (ended.returncode, ended.stderr.count("\n")) == (4, 1)
    assert ended.stderr.startswith(f"kohakuriver: {secret} must be a file of yours with mode 0600")


def test_a_database_of_a_newer_release_stops_the_host_in_one_line(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "host.db")) as database:
        database.execute("PRAGMA user_version = 1000")
    secret = tmp_path / "secret"
    ended = kohakuriver("host", "--state-dir", str(tmp_path), "--cluster-secret-file", str(secret))
    assert (ended.returncode, ended.stderr.count("\n")) == (5, 1)
    assert "was written by a newer release" in ended.stderr


def test_a_runner_without_the_secret_says_where_it_is_to_come_from(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    ended = kohakuriver("runner", "--state-dir", str(tmp_path), "--cluster-secret-file", str(secret))
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1)
    assert f"{secret}: there is no cluster secret; copy it from the host" in ended.stderr


def test_a_host_serves_alone_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "host_config.py"
    file.write_text(
        f"STATE_DIR = {str(tmp_path)!r}\nCLUSTER_SECRET_FILE = {str(tmp_path / 'secret')!r}\nHOST_PORT = {port}\n"
    )
    command = [sys.executable, "-m", "kohakuriver", "host", "--config", str(file)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        ready = next(line for line in child.stderr if "host is ready" in line)
        second = kohakuriver("host", "--config", str(file))
        child.terminate()
        rest = child.stderr.read()
    assert f"INFO kohakuriver.host.app: host is ready url=http://127.0.0.1:{port} version=" in ready
    assert child.returncode == 0 and rest.endswith("host stops; runners and tasks go on\n")
    assert (second.returncode, second.stderr.count("\n")) == (5, 1)
    assert f"{tmp_path}/host.db is in use by another program" in second.stderr
