"""Completion in real shells, of every word that can be typed."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kohakuriver.client import build_parser
from kohakuriver.client.commands import NOUNS
from kohakuriver.client.completion import completion_script
from kohakuriver.model import host_api as api
from kohakuriver.model.errors import BadRequest
from tests.client.conftest import PROGRAM, River
from tests.client.made_up_host import FIRST, MadeUpHost, node, task

ASK_BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={at}
compopt() {{ echo FILES; }}
_kohakuriver
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ASK_ZSH = """
compdef() {{ : }}
source {script}
words=({words}) CURRENT={at}
compadd() {{ shift; print -l -- "$@" }}
_files() {{ echo FILES }}
_kohakuriver
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the head of PATH that holds `kohakuriver`."""
    made = tmp_path / "bin" / "kohakuriver"
    made.parent.mkdir()
    made.write_text(f"#!/bin/sh\nexec {PROGRAM[0]} -c '{PROGRAM[2]}' \"$@\"\n")
    made.chmod(0o755)
    monkeypatch.setenv("PATH", f"{made.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    return tmp_path


@functools.cache
def script_of(shell: str) -> str:
    return completion_script(shell, build_parser())


def offered(shell: str, place: Path, *words: str) -> set[str]:
    """What the shell offers for the last of the words."""
    script = place / shell
    script.write_text(script_of(shell))
    if shell == "fish":
        line = " ".join(words)
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return {line.partition("\t")[0] for line in found.splitlines()}
    ask = ASK_BASH if shell == "bash" else ASK_ZSH
    quoted = " ".join(f"'{word}'" for word in words)
    at = len(words) - (1 if shell == "bash" else 0)
    text = ask.format(script=script, words=quoted, at=at)
    command = ["bash", "--norc", "-c", text] if shell == "bash" else ["zsh", "-f", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    return name


def test_every_noun_and_program_is_offered(shell: str, program: Path) -> None:
    found = offered(shell, program, "kohakuriver", "")
    assert {"task", "node", "host", "runner", "dev", "demo", "config", "docs", "install", "version"} <= found


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.word)
def test_every_command_of_a_noun_is_offered(shell: str, program: Path, noun: object) -> None:
    word = noun.word  # type: ignore[attr-defined]
    verbs = {command.verb.partition(" ")[0] for command in noun.commands()} - {""}  # type: ignore[attr-defined]
    assert verbs <= offered(shell, program, "kohakuriver", word, "")
    assert "submit" not in offered(shell, program, "kohakuriver", "node", "")


def test_every_command_behind_a_word_between_is_offered(shell: str, program: Path) -> None:
    assert {"list", "create", "revoke"} <= offered(shell, program, "kohakuriver", "auth", "token", "")
    assert "--bootstrap-file" in offered(shell, program, "kohakuriver", "auth", "register", "--")


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)  # fish looks for words in its own way
def test_words_are_found_behind_options(shell: str, program: Path) -> None:
    found = offered(shell, program, "kohakuriver", "--host", "task", "--json", "node", "")
    assert "drain" in found and "submit" not in found


def test_options_are_offered(shell: str, program: Path) -> None:
    found = offered(shell, program, "kohakuriver", "task", "submit", "--")
    assert {"--target", "--cores", "--memory", "--gpus", "--wait", "--json", "--host"} <= found
    assert "--reason" not in found


def test_choices_are_offered(shell: str, program: Path) -> None:
    assert {"running", "pending"} <= offered(shell, program, "kohakuriver", "task", "list", "--status", "")
    assert {"host", "runner"} <= offered(shell, program, "kohakuriver", "install", "")


def test_ids_and_names_are_asked_of_the_host(shell: str, program: Path, host: MadeUpHost) -> None:
    assert str(FIRST) in offered(shell, program, "kohakuriver", "task", "kill", "")
    assert {"alpha", "beta"} <= offered(shell, program, "kohakuriver", "node", "drain", "")
    assert {"alpha", "beta"} <= offered(shell, program, "kohakuriver", "task", "submit", "-t", "")


@pytest.mark.parametrize("words", [["task", "submit", "--shell", ""], ["task", "submit", "--", ""]])
def test_files_are_offered_where_anything_may_stand(shell: str, program: Path, words: list[str]) -> None:
    if shell != "fish":
        assert offered(shell, program, "kohakuriver", *words) == {"FILES"}
    else:
        assert "task" not in offered(shell, program, "kohakuriver", *words)


def test_without_a_host_nothing_is_offered_and_nothing_is_said(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")
    told = river("__complete", "task")
    assert (told.code, told.out, told.err) == (0, "", "")


def test_the_shell_gets_no_word_that_it_would_execute(river: River, host: MadeUpHost) -> None:
    host.answer(api.NODE_LIST, [node("$(reboot)"), node("`x`"), node("a b"), node("alpha")])
    host.answer(api.TASK_LIST, [task(name="$(reboot)")])
    assert river("__complete", "node").out == "alpha\n"
    assert river("__complete", "task").out == f"{FIRST}\n"
    assert river("__complete", "secrets").out == ""


def test_another_shell_is_refused() -> None:
    with pytest.raises(BadRequest, match="choose bash, zsh or fish"):
        completion_script("tcsh")
