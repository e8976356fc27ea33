"""The house keeps its shape: layers, homes of third-party modules, sizes, names."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "kohakuriver"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((TOP / "tests").rglob("*.py"))
EVERY_FILE = [TOP / "build.py", *SOURCES, *TESTS]

MAX_FILE_LINES, MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 500, 60, 10
MAX_POSITIONAL, MAX_PARAMETERS = 5, 7
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "misc", "core", "stuff"}
MAY_CATCH_EVERYTHING = {"wire/serve.py", "system/loops.py"}
MAY_CREATE_TASKS = {"system/loops.py"}

# Down only: which rooms a room may look into.
LAYERS = {
    "model": {"model"},
    "system": {"model", "system"},
    "wire": {"model", "wire"},
    "host": {"model", "system", "wire", "host"},
    "runner": {"model", "system", "wire", "runner"},
    "client": {"model", "system", "wire", "client"},
    "programs": {"model", "system", "wire", "host", "runner", "client", "programs"},
}
TOP_FILES = {"__init__.py", "__main__.py", "archive_main.py", "launcher.py"}
LAUNCHER = "launcher"  # stands alone, so whoever must know the running file may ask it

# Where a module that touches the world may be imported: a room, or one file.
HOMES = {
    "aiohttp": {"wire/", "host/app.py", "runner/app.py", "host/endpoints/streams.py"},
    "yarl": {"wire/"},
    "multidict": {"wire/"},
    "docker": {"system/"},
    "requests": {"system/"},
    "urllib3": {"system/"},
    "pyroute2": {"system/"},
    "subprocess": {"system/"},
    "bcrypt": {"host/auth/"},
    "cryptography": {"system/certificates.py"},
    "asyncssh": {"host/services/ssh_proxy.py"},
}
# What one calls on a module, and where.
CALLS = {
    "sqlite3.connect": {"system/"},
    "asyncio.create_subprocess_exec": {"system/"},
    "asyncio.create_subprocess_shell": set[str](),
    "os.fork": {"system/", "launcher.py"},
    "os.system": set[str](),
    "os.popen": set[str](),
}
# The vocabulary does no I/O, and is told the time and the dice.
NOT_IN_MODEL = {
    *("asyncio", "http", "io", "logging", "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket"),
    *("sqlite3", "subprocess", "tempfile", "threading", "time", "urllib.request"),
}


def place_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else TOP))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, also inside functions."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place_of(path)}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def at_home(place: str, homes: set[str]) -> bool:
    return any(place == home or (home.endswith("/") and place.startswith(home)) for home in homes)


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(TOP)) for path in paths])


@each(SOURCES)
def test_a_room_looks_only_down(path: Path) -> None:
    place = path.relative_to(PACKAGE)
    if len(place.parts) == 1:
        assert place.name in TOP_FILES, f"{place} stands in no room"
        return
    allowed = LAYERS[place.parts[0]]
    for line, name in imports_of(path):
        package, room, *_ = [*name.split("."), "", ""]
        if package == "kohakuriver" and room in LAYERS:
            assert room in allowed, f"{place}:{line}: {place.parts[0]}/ reaches into {room}/"
        elif package == "kohakuriver":
            assert room in ("", "__version__", LAUNCHER), f"{place}:{line}: imports {name}"


@each(SOURCES)
def test_modules_that_touch_the_world_stay_at_home(path: Path) -> None:
    place = place_of(path)
    for line, name in imports_of(path):
        homes = HOMES.get(name.partition(".")[0])
        assert homes is None or at_home(place, homes), f"{place}:{line}: imports {name}"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called not in CALLS or at_home(place, CALLS[called]), f"{place}:{node.lineno}: calls {called}"


@each([path for path in SOURCES if path.is_relative_to(PACKAGE / "model")])
def test_the_vocabulary_is_standard_library_without_io(path: Path) -> None:
    for line, name in imports_of(path):
        package = name.partition(".")[0]
        assert package == "kohakuriver" or package in sys.stdlib_module_names, f"{path.name}:{line}: {name}"
        assert package not in NOT_IN_MODEL and name.rpartition(".")[0] not in NOT_IN_MODEL, (
            f"{path.name}:{line}: {name}"
        )
    called = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval"}


@each(SOURCES)
def test_everything_is_caught_in_two_places_only(path: Path) -> None:
    place = place_of(path)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler) and place not in MAY_CATCH_EVERYTHING:
            caught = {ast.unparse(part) for part in ast.walk(node.type)} if node.type else {"everything"}
            assert not caught & {"Exception", "BaseException", "everything"}, f"{place}:{node.lineno}"


@each(SOURCES)
def test_background_work_is_started_by_the_supervisor_only(path: Path) -> None:
    place = place_of(path)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            assert place in MAY_CREATE_TASKS, f"{place}:{node.lineno}: {node.attr} outside the supervisor"


@each(EVERY_FILE)
def test_no_module_variable_is_changed_from_a_function(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, ast.Global), f"{place_of(path)}:{node.lineno}: global {', '.join(node.names)}"


@each(EVERY_FILE)
def test_a_file_says_what_it_is_for_and_has_a_name_that_says_it_too(path: Path) -> None:
    text = path.read_text("utf-8")
    assert path.stem not in VAGUE and not set(path.relative_to(TOP).parts) & VAGUE
    if text.strip():
        told = ast.get_docstring(tree_of(path)) or ""
        assert told and told.split("\n\n")[0].rstrip().endswith((".", "?", ":")), (
            f"{place_of(path)} does not say what it is for"
        )


@each([path for path in EVERY_FILE if path != TOP / "build.py"])  # the one developer tool is one file
def test_a_file_is_not_too_long(path: Path) -> None:
    assert path.read_text("utf-8").count("\n") <= MAX_FILE_LINES


@each(EVERY_FILE)
def test_a_function_is_not_too_long(path: Path) -> None:
    too_long = {f"{f.name}:{f.lineno}": length_of(f) for f in functions_of(path) if length_of(f) > MAX_FUNCTION_LINES}
    assert not too_long


@each(EVERY_FILE)
def test_a_function_takes_few_parameters(path: Path) -> None:
    for function in functions_of(path):
        asked = function.args
        positional = [a.arg for a in (*asked.posonlyargs, *asked.args) if a.arg not in ("self", "cls")]
        told = f"{place_of(path)}:{function.lineno}: {function.name}"
        if not function.name.startswith("test_"):  # a test names the fixtures and parameters that it needs
            assert len(positional) <= MAX_POSITIONAL, told
        assert len(positional) + len(asked.kwonlyargs) <= MAX_PARAMETERS, told


@each(SOURCES)
def test_everything_is_annotated(path: Path) -> None:
    for function in functions_of(path):
        assert function.returns is not None, f"{place_of(path)}:{function.lineno}: {function.name}"


def test_most_functions_are_short() -> None:
    lengths = [length_of(function) for path in SOURCES for function in functions_of(path)]
    assert statistics.median(lengths) < MEDIAN_FUNCTION_LINES


def test_the_top_level_is_what_the_readme_says_it_is() -> None:
    shown = {path.name for path in TOP.iterdir() if not path.name.startswith(".")}
    made = {"dist", "build"}  # by build.py
    assert shown - made == {"kohakuriver", "build.py", "tests", "systemd", "README.md", "setup.cfg"}
