"""The pages that travel with the program: they are there, they can be shown, and what they name exists."""

import re
import shlex
from pathlib import Path

import pytest

from kohakuriver.client.parser import build_parser
from kohakuriver.model.errors import NotFound
from kohakuriver.programs import docs

TOP = Path(__file__).resolve().parents[2]
PAGES = [
    "accounts",
    "api",
    "architecture",
    "conventions",
    "decisions",
    "environments",
    "files",
    "operations",
    "overlay",
    "ssh",
    "terminals",
    "vps",
]
WRITTEN = [TOP / "README.md", *sorted((TOP / "kohakuriver" / "docs").glob("*.md"))]


def test_the_list_names_each_page_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.run(["docs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == PAGES
    assert "Operations: install, upgrade" in lines[PAGES.index("operations")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_printed_whole_when_nobody_pages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.run(["docs", name]) == 0
    assert capsys.readouterr().out == (TOP / "kohakuriver" / "docs" / f"{name}.md").read_text("utf-8")


def test_a_page_goes_through_a_pager_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    paged: list[str] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("pydoc.pager", paged.append)
    assert docs.run(["docs", "decisions"]) == 0
    assert paged[0].startswith("# Decisions")


@pytest.mark.parametrize("name", ["nothing", "../README", "", "/etc/passwd"])
def test_a_page_that_is_not_there_is_an_error_that_lists_those_that_are(name: str) -> None:
    with pytest.raises(NotFound, match=", ".join(PAGES)):
        docs.run(["docs", name])


@pytest.mark.parametrize("page", WRITTEN, ids=[page.name for page in WRITTEN])
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|md))?)`", page.read_text("utf-8"))
    below = ("", "kohakuriver", "kohakuriver/host", "kohakuriver/runner")
    missing = [name for name in named if name != "dist/" and not any((TOP / top / name).exists() for top in below)]
    assert not missing


@pytest.mark.parametrize("page", WRITTEN, ids=[page.name for page in WRITTEN])
def test_lines_outside_tables_and_examples_are_not_too_long(page: Path) -> None:
    examples = re.compile(r"^```.*?^```$|^    .*?$|^\|.*?$", re.DOTALL | re.MULTILINE)
    assert max(map(len, examples.sub("", page.read_text("utf-8")).splitlines())) <= 140


def examples() -> list[str]:
    """The client commands that the pages tell people to type, with stand-ins made real."""
    typed = re.compile(r"^ *(?:\$ )?kohakuriver ((?:task|node) .*)$", re.MULTILINE)
    found = [line for page in WRITTEN for line in typed.findall(page.read_text("utf-8"))]
    return [re.sub(r"\bID\b", "1234", line) for line in found]


def test_the_pages_show_commands() -> None:
    assert len(examples()) > 8


@pytest.mark.parametrize("line", examples())
def test_a_command_that_a_page_shows_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    parsed = build_parser().parse_args(words)
    assert [parsed.noun, parsed.verb] == words[:2]
