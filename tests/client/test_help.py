"""Help that a tired person understands, without a host."""

import re

import pytest

from kohakuriver.client.commands import NOUNS
from kohakuriver.client.manual import EXIT_CODES, PROGRAMS
from kohakuriver.model import errors
from tests.client.conftest import River

WORDS = [f"{noun.word} {command.verb}".strip() for noun in NOUNS for command in noun.commands()]
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RiverError)]


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_the_help_shows_every_command_and_every_program(river: River, word: str) -> None:
    told = river(word)
    assert (told.code, told.err) == (0, "")
    for words in WORDS:
        assert f"    {words} " in told.out
    for program in PROGRAMS:
        assert f"\n  {program.word} " in told.out
    assert max(map(len, told.out.splitlines())) <= 100


def test_the_help_tells_every_exit_code_that_an_error_has(river: River) -> None:
    assert {kind.exit_code for kind in KINDS} | {0} == set(EXIT_CODES)
    shown = river("--help").out
    assert all(f"\n  {code}  {meaning}\n" in shown for code, meaning in EXIT_CODES.items())


def test_the_programs_in_the_help_are_those_that_the_entry_starts() -> None:
    from kohakuriver.__main__ import PROGRAMS as STARTED

    assert {program.word for program in PROGRAMS} == {word for word in STARTED if not word.startswith("-")}


def test_without_words_the_help_goes_to_standard_error(river: River) -> None:
    told = river()
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("usage: kohakuriver ")


@pytest.mark.parametrize("noun", [noun.word for noun in NOUNS if noun.commands()[0].verb])
def test_the_help_of_a_noun_shows_its_commands(river: River, noun: str) -> None:
    told = river(noun, "--help")
    assert told.code == 0
    assert all(re.search(rf"\n    {words.split()[1]}\s", told.out) for words in WORDS if words.startswith(f"{noun} "))


@pytest.mark.parametrize("group", sorted({words.rpartition(" ")[0] for words in WORDS if words.count(" ") == 2}))
def test_a_word_between_leads_on_to_its_commands(river: River, group: str) -> None:
    told = river(*group.split(), "--help")
    assert told.code == 0
    assert all(f"\n    {words.split()[2]} " in told.out for words in WORDS if words.startswith(f"{group} "))
    told = river(*group.split())
    assert (told.code, told.err) == (2, f"kohakuriver: a command is missing: `kohakuriver {group} --help` shows them\n")


def test_a_noun_alone_says_what_is_missing(river: River) -> None:
    told = river("task")
    assert (told.code, told.out) == (2, "")
    assert told.err == "kohakuriver: a command is missing: `kohakuriver task --help` shows them\n"


@pytest.mark.parametrize("words", WORDS)
def test_every_command_has_help_of_its_own(river: River, words: str) -> None:
    told = river(*words.split(), "--help")
    assert (told.code, told.err) == (0, "")
    (summary,) = [c.summary for n in NOUNS for c in n.commands() if f"{n.word} {c.verb}".strip() == words]
    assert " ".join(summary.split()) in " ".join(told.out.split())
    assert not re.search(r"\d,\s+\d,\s+\d", told.out), "a choice is shown by the word that is typed"
    assert told.out.startswith(f"usage: kohakuriver {words} [OPTIONS]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tsk list", "there is no `kohakuriver tsk`; did you mean `task`?"),
        ("task lst", "there is no `kohakuriver task lst`; did you mean `list`?"),
        ("task zzzzzz", "there is no `kohakuriver task zzzzzz` (see `kohakuriver task --help`)"),
        ("task list -s runing", "-s/--status: 'runing' is not one of"),
        ("task list --limt 3", "kohakuriver task list takes no option '--limt'; did you mean `--limit`?"),
        ("task list now", "kohakuriver task list takes no further word 'now' (see `kohakuriver task list --help`)"),
        ("task kill", "the following arguments are required: TASK (see `kohakuriver task kill --help`)"),
        ("task kill abc", "TASK: 'abc' is not an id (ids are digits; `kohakuriver task list` shows them)"),
        ("task submit -m 8X -- true", "-m/--memory: '8X' is not a size (examples: 512M, 8G, 4Gi)"),
        ("task submit --time-limit soon -- true", "--time-limit: 'soon' is not a duration"),
        ("task submit -g many -- true", "-g/--gpus: 'many' is neither how many (2) nor which (0,1 or @0)"),
        ("task submit -e A -- true", "-e/--env: 'A' is not NAME=VALUE"),
        ("task submit -c many -- true", "-c/--cores: 'many' is not a whole number"),
        ("task submit -c -1 -- true", "--cores: -1 is not between 0 and 4096"),
        ("task submit --retry 100 -- true", "--retry: '100' is not between 0 and 99"),
        ("task submit -t a:b -- true", "--target: 'a:b' is not a target"),
        ("task submit -g 0,0 -- true", "--gpus: a GPU is named twice"),
        ("task submit --image a --container b -- true", "--container: give an environment or a registry_image"),
        ("task submit -c 2", "no command given"),
        ("task logs --both --stderr 1", "--stderr: give it or --both, not both"),
        ("task watch --interval 0", "--interval: 0 is not between 0.1s and 1d"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_that_helps(river: River, words: str, said: str) -> None:
    told = river(*words.split())
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("kohakuriver: ") and told.err.count("\n") == 1
    assert said in told.err


def test_a_wrong_command_line_is_json_for_programs(river: River) -> None:
    told = river("--json", "task", "lst")
    assert told.code == 2
    assert told.err.startswith('{"error":{"code":"bad_request","message":"there is no `kohakuriver task lst`')
