"""Start-up time is a feature: what a command does not need, it does not load."""

import os
import subprocess
import sys

import pytest

from tests.client.made_up_host import MadeUpHost

FORBIDDEN = {
    *("aiohttp", "asyncio", "docker", "asyncssh", "pyroute2", "bcrypt", "sqlite3", "logging", "subprocess"),
    *("urllib.request", "concurrent.futures", "multiprocessing", "pathlib", "tempfile", "shutil"),
    *("kohakuriver.host", "kohakuriver.runner", "kohakuriver.wire", "kohakuriver.system"),
}
FORBIDDEN_IN_HELP = {"http.client", "socket", "ssl", "email", "select"}
LOADED = "import sys; from kohakuriver.client import run; sys.stdout = sys.stderr; run(sys.argv[1:]); sys.stdout = sys.__stdout__; print(*sys.modules)"  # fmt: skip
BARE = "import sys; print(*sys.modules)"


def modules(code: str, *words: str) -> set[str]:
    """The modules that are loaded at the end, without what any Python here loads by itself."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {os.getcwd()!r}); {code}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [["task", "list"], ["task", "status", "5"], ["task", "submit", "--", "true"], ["node", "list"], ["auth", "status"]],
)
def test_ordinary_commands_load_nothing_heavy(host: MadeUpHost, words: list[str]) -> None:
    loaded = modules(LOADED, *words) - modules(BARE)
    assert "kohakuriver.client.session" in loaded
    assert {name for name in FORBIDDEN if name in loaded} == set()


@pytest.mark.parametrize(
    "words",
    [["--help"], ["task", "--help"], ["task", "submit", "--help"], ["task", "lst"], ["auth", "login", "--help"]],
)
def test_help_does_not_even_load_the_network(words: list[str]) -> None:
    loaded = modules(LOADED, *words) - modules(BARE)
    assert {name for name in FORBIDDEN_IN_HELP | FORBIDDEN - {"shutil"} if name in loaded} == set()


def test_a_noun_loads_only_its_own_commands(host: MadeUpHost) -> None:
    assert "kohakuriver.client.commands.task" not in modules(LOADED, "node", "list")
    assert "kohakuriver.client.commands.node" not in modules(LOADED, "task", "list")


def test_the_client_package_itself_is_light() -> None:
    loaded = modules("import kohakuriver.client; print(*sys.modules)") - modules(BARE)
    assert {name for name in loaded if name.startswith("kohakuriver")} == {"kohakuriver", "kohakuriver.client"}
