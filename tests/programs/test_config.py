"""`kohakuriver config`: what is set and by whom, examples, the reference, completion."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from kohakuriver.model import settings
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings_text import example_file, reference_table
from kohakuriver.programs import config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kohakuriver").mkdir(mode=0o700)
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert config.run(["config", *words]) == 0
    return capsys.readouterr().out


def test_show_tells_each_value_and_who_set_it(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / ".kohakuriver" / "host_config.py"
    file.write_text("\nHOST_PORT = 9000\n")
    monkeypatch.setenv("KOHAKURIVER_LOG_LEVEL", "DEBUG")
    lines = shown(capsys, "show", "host").splitlines()
    assert lines[0] == f"host: file {file}"
    assert [line.split() for line in lines if "HOST_PORT" in line] == [["HOST_PORT", "=", "9000", f"[{file}:2]"]]
    assert any(line.split() == ["LOG_LEVEL", "=", '"DEBUG"', "[KOHAKURIVER_LOG_LEVEL]"] for line in lines)
    assert any(line.split() == ["DB_FILE", "=", '""', "[default]"] for line in lines)


def test_show_without_a_program_tells_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "show")
    assert [line.partition(":")[0] for line in text.splitlines() if not line.startswith(" ")] == list(settings.PROGRAMS)


def test_show_reads_the_file_it_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.py").write_text("RUNNER_PORT = 9001\n")
    told = json.loads(shown(capsys, "show", "runner", "--config", str(home / "mine.py"), "--json"))
    assert told["runner"]["file"] == str(home / "mine.py")
    assert told["runner"]["settings"]["RUNNER_PORT"] == {"value": 9001, "set_by": f"{home}/mine.py:1"}
    assert told["runner"]["settings"]["ADDITIONAL_MOUNTS"] == {"value": [], "set_by": "default"}


def test_a_file_without_a_program_is_refused(home: Path) -> None:
    with pytest.raises(BadRequest, match="say whose file it is"):
        config.run(["config", "show", "--config", str(home / "mine.py")])


def test_a_secret_is_never_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.PROGRAMS, "host", WithSecret)
    monkeypatch.setenv("KOHAKURIVER_ADMIN_SECRET", "hunter2")
    for words in (["show", "host"], ["show", "host", "--json"]):
        text = shown(capsys, *words)
        assert "hunter2" not in text and "(hidden)" in text and "KOHAKURIVER_ADMIN_SECRET" in text


def test_the_example_and_the_reference_are_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "example", "runner") == example_file("runner")
    assert shown(capsys, "reference", "client") == reference_table("client")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "completion", shell)
    assert "kohakuriver" in text and "submit" in text


@pytest.mark.parametrize(
    "words", [[], ["show", "nobody"], ["example", "client"], ["completion", "tcsh"], ["show", "host", "--jso"]]
)
def test_what_it_does_not_know_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(BadRequest, match=r"\(see `kohakuriver config|did you mean"):
        config.run(["config", *words])


@dataclass(frozen=True, slots=True, kw_only=True)
class WithSecret:
    """Settings of which one is secret."""

    host_port: int = settings.setting(8000, "A port.")
    admin_secret: str = settings.setting("", "A secret.", secret=True)
