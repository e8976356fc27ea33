"""Settings from file, environment and flags: who wins, what is refused, and how the message names the place."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from kohakuriver.model.settings import ClientSettings, HostSettings, RunnerSettings
from kohakuriver.system import config_file
from kohakuriver.system.config_file import Loaded, Sources, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "host_config.py"
    path.write_text("")
    path.chmod(0o600)
    return path


def host(path: Path, text: str) -> Loaded[HostSettings]:
    path.write_text(text)
    return load(HostSettings, Sources(file=path))


def refusal(path: Path, text: str, kind: type = HostSettings) -> str:
    path.write_text(text)
    with pytest.raises(BadRequest) as refused:
        load(kind, Sources(file=path))
    return str(refused.value)


def test_defaults_stand_when_nobody_says_anything() -> None:
    loaded = load(HostSettings, Sources())
    assert loaded.settings == HostSettings()
    assert set(loaded.origins.values()) == {"default"}


def test_a_file_sets_values_and_its_lines_are_their_origin(file: Path) -> None:
    loaded = host(file, "# mine\n\nHOST_PORT = 9000\nDB_FILE = '/data/host.db'\n")
    assert (loaded.settings.host_port, loaded.settings.db_file) == (9000, "/data/host.db")
    assert loaded.origins["host_port"] == f"{file}:3"
    assert loaded.origins["db_file"] == f"{file}:4"
    assert loaded.origins["log_level"] == "default"


def test_the_environment_wins_over_the_file_and_a_flag_over_both(file: Path) -> None:
    file.write_text("HOST_PORT = 1\nKILL_GRACE_SECONDS = 1\nLOG_LEVEL = 'ERROR'\n")
    environment = {"KOHAKURIVER_HOST_PORT": "2", "KOHAKURIVER_KILL_GRACE_SECONDS": "2.5", "HOST_PORT": "7"}
    loaded = load(HostSettings, Sources(file, environment, {"host_port": "3", "log_level": None}))
    settings = loaded.settings
    assert (settings.host_port, settings.kill_grace_seconds, settings.log_level) == (3, 2.5, "ERROR")
    assert loaded.origins["host_port"] == "--host-port"
    assert loaded.origins["kill_grace_seconds"] == "KOHAKURIVER_KILL_GRACE_SECONDS"


def test_the_last_of_two_assignments_counts_and_is_the_one_named(file: Path) -> None:
    loaded = host(file, "HOST_PORT = 1\nif True:\n    HOST_PORT = 2\n")
    assert (loaded.settings.host_port, loaded.origins["host_port"]) == (2, f"{file}:3")


def test_config_gen_has_the_last_word(file: Path) -> None:
    text = "HOST_PORT = 1\n\ndef config_gen():\n    return {\n        'HOST_PORT': 2,\n        'LOG_LEVEL': 'DEBUG',\n    }\n"
    loaded = host(file, text)
    assert (loaded.settings.host_port, loaded.settings.log_level) == (2, "DEBUG")
    assert (loaded.origins["host_port"], loaded.origins["log_level"]) == (f"{file}:5", f"{file}:6")


def test_config_gen_may_make_its_keys_as_it_likes(file: Path) -> None:
    text = "def config_gen():\n    return dict(HOST_PORT=2) | {'LOG' + '_LEVEL': 'DEBUG'}\n"
    loaded = host(file, text)
    assert (loaded.origins["host_port"], loaded.origins["log_level"]) == (f"{file}:2", f"{file}:1")


def test_config_gen_must_return_a_mapping(file: Path) -> None:
    assert "config_gen() must return a mapping, not list" in refusal(file, "def config_gen():\n    return []\n")


def test_lower_case_names_imports_and_underscores_are_the_authors_own(file: Path) -> None:
    text = (
        "import os\nfrom os import O_RDONLY\nfrom pathlib import Path\n_MINE = 1\nport = 9\nHOST_PORT = port * 1000\n"
    )
    assert host(file, text).settings == HostSettings(host_port=9000)


def test_a_path_and_a_tuple_are_taken_for_the_text_and_the_list_they_mean(file: Path) -> None:
    file.write_text("from pathlib import Path\nSTATE_DIR = Path('/data')\nADDITIONAL_MOUNTS = ('/a:/b', '/c:/d:ro')\n")
    settings = load(RunnerSettings, Sources(file=file)).settings
    assert (settings.state_dir, settings.additional_mounts) == ("/data", ["/a:/b", "/c:/d:ro"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nHOST_PORT = '8000'\n", ":2: HOST_PORT: expected a whole number, got text"),
        ("HOST_PORT = 8000.5\n", ":1: HOST_PORT: expected a whole number"),
        ("HOST_PORT = True\n", ":1: HOST_PORT: expected a whole number, got true or false"),
        ("HOST_PORT = 70000\n", ":1: HOST_PORT: 70000 is not between 1 and 65535"),
        ("HOST_PORT = None\n", ":1: HOST_PORT: expected a whole number, got nothing"),
        ("HEARTBEAT_INTERVAL_SECONDS = float('nan')\n", ":1: HEARTBEAT_INTERVAL_SECONDS: nan is not between"),
        ("TASKS_PRIVILEGED = 1\n", ":1: TASKS_PRIVILEGED: expected true or false, got a whole number"),
        ("LOG_LEVEL = 'LOUD'\n", ":1: LOG_LEVEL: 'LOUD' is not allowed here"),
        ("DB_FILE = object()\n", ":1: DB_FILE: expected text, got object"),
        ("DB_FILE = 'a\\0b'\n", ":1: DB_FILE: must not hold a NUL"),
        ("\n\nHOST_PROT = 1\n", ":3: HOST_PROT: there is no such setting; did you mean HOST_PORT?"),
        ("RUNNER_PORT = 1\n", ":1: RUNNER_PORT: is a setting of the runner, not of this program"),
        ("class HOST: pass\n", ":1: HOST: there is no such setting"),
        (
            "def config_gen():\n    return {'host_port': 1}\n",
            ":2: host_port: there is no such setting; did you mean HOST_PORT?",
        ),
        ("def config_gen():\n    return {'HOST_PORT': ''}\n", ":2: HOST_PORT: expected a whole number"),
        ("HOST_PORT = \n", ":1: "),
        ("x = 1\ny = x / 0\n", ":2: ZeroDivisionError: division by zero"),
        ("def port():\n    return int('x')\nHOST_PORT = port()\n", ":2: ValueError: "),
        ("import no_such_module_here\n", ":1: ModuleNotFoundError: "),
        ("def port():\n    return port()\nport()\n", ":2: RecursionError: "),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_file_and_line(file: Path, text: str, told: str) -> None:
    assert refusal(file, text).startswith(str(file) + told)


def test_bytes_that_are_no_python_are_refused(file: Path) -> None:
    file.write_bytes(b"HOST_PORT = 1\n\xff\xfe")
    with pytest.raises(BadRequest, match=r"host_config\.py"):
        load(HostSettings, Sources(file=file))
    file.write_bytes(b"\0")
    with pytest.raises(BadRequest, match=r"host_config\.py"):
        load(HostSettings, Sources(file=file))


def test_a_huge_file_is_refused(file: Path) -> None:
    assert "larger than" in refusal(file, "#" * (config_file.MAX_FILE_BYTES + 1))


@pytest.mark.parametrize(
    ("environment", "flags", "told"),
    [
        ({"KOHAKURIVER_HOST_PORT": "x"}, {}, "KOHAKURIVER_HOST_PORT: expected a whole number, got text"),
        ({"KOHAKURIVER_HOST_PORT": ""}, {}, "KOHAKURIVER_HOST_PORT: expected a whole number, got text"),
        ({"KOHAKURIVER_TASKS_PRIVILEGED": "maybe"}, {}, "KOHAKURIVER_TASKS_PRIVILEGED: expected true or false"),
        ({}, {"host_port": "0"}, "--host-port: 0 is not between 1 and 65535"),
        ({}, {"log_level": "loud"}, "--log-level: 'loud' is not allowed here"),
    ],
)
def test_a_wrong_variable_or_flag_is_named(environment: dict[str, str], flags: Mapping[str, str], told: str) -> None:
    with pytest.raises(BadRequest) as refused:
        load(HostSettings, Sources(None, environment, flags))
    assert str(refused.value).startswith(told)


def test_texts_become_the_values_they_mean() -> None:
    environment = {
        "KOHAKURIVER_TASK_SHM_BYTES": "2G",
        "KOHAKURIVER_ADDITIONAL_MOUNTS": "/a:/b,/c:/d:ro",
        "KOHAKURIVER_TASKS_PRIVILEGED": "yes",
        "KOHAKURIVER_RESOURCE_CHECK_INTERVAL_SECONDS": "0.5",
        "KOHAKURIVER_RUNNER_HOSTNAME": "true",
    }
    settings = load(RunnerSettings, Sources(None, environment)).settings
    assert settings.task_shm_bytes == 2_000_000_000
    assert settings.additional_mounts == ["/a:/b", "/c:/d:ro"]
    assert settings.tasks_privileged is True
    assert settings.resource_check_interval_seconds == 0.5
    assert settings.runner_hostname == "true"


def test_the_client_reads_its_own_short_variables() -> None:
    environment = {"KOHAKURIVER_HOST": "10.0.0.1", "KOHAKURIVER_PORT": "9000"}
    assert load(ClientSettings, Sources(None, environment)).settings == ClientSettings(host="10.0.0.1", port=9000)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(NotAllowed, match=rf"other users can write to {file}"):
        load(HostSettings, Sources(file=file))


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_file_in_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open" / "inner").mkdir(parents=True)
    path = tmp_path / "open" / "inner" / "host_config.py"
    path.write_text("raise SystemExit('this file was run')\n")
    (tmp_path / "open").chmod(mode)
    with pytest.raises(NotAllowed, match=r"other users can write to .*/open "):
        load(HostSettings, Sources(file=path))


def test_a_sticky_directory_protects_what_is_mine(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    path = tmp_path / "shared" / "host_config.py"
    path.write_text("HOST_PORT = 1\n")
    assert load(HostSettings, Sources(file=path)).settings.host_port == 1


def test_a_file_of_somebody_else_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(NotAllowed, match="belongs to user id"):
        load(HostSettings, Sources(file=file))


def test_a_link_is_followed_and_every_place_on_its_way_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    target = tmp_path / "real.py"
    target.write_text("HOST_PORT = 1\n")
    (tmp_path / "open" / "hop.py").symlink_to("../real.py")
    (tmp_path / "host_config.py").symlink_to(tmp_path / "open" / "hop.py")
    assert load(HostSettings, Sources(file=tmp_path / "host_config.py")).settings.host_port == 1
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(NotAllowed, match=r"other users can write to .*/open "):
        load(HostSettings, Sources(file=tmp_path / "host_config.py"))


def test_links_in_a_circle_and_things_that_are_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to("b.py")
    (tmp_path / "b.py").symlink_to("a.py")
    with pytest.raises(NotAllowed, match="too many links"):
        config_file.refuse_unsafe(tmp_path / "a.py")
    with pytest.raises(NotAllowed, match="is not a file"):
        config_file.refuse_unsafe(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0o600)
        with pytest.raises(NotAllowed, match="is not a file"):
            config_file.refuse_unsafe(tmp_path / "s")


def test_a_file_is_only_looked_for_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_file.find_file("host", None) is None
    (tmp_path / ".kohakuriver").mkdir()
    default = tmp_path / ".kohakuriver" / "host_config.py"
    default.write_text("")
    assert config_file.find_file("host", None) == default
    assert config_file.find_file("runner", None) is None
    assert config_file.find_file("host", "~/.kohakuriver/host_config.py") == default
    with pytest.raises(NotFound, match="there is no such configuration file"):
        config_file.find_file("host", str(tmp_path / "absent.py"))
