"""The house keeps its shape: layers, homes of third-party modules, sizes, names."""

import ast
import functools
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "aiohttp": {"wire/", "host/app.py", "runner/app.py"},
    "yarl": {"wire/"},
    "multidict": {"wire/"},
    "docker": {"system/"},
    "requests": {"system/"},
    "urllib3": {"system/"},
    "pyroute2": {"system/"},
    "subprocess": {"system/"},
    "bcrypt": {"host/auth/"},
    "cryptography": {"system/certificates.py", "system/key_pair.py", "system/key_exchange.py"},
    "asyncssh": {"host/services/ssh_proxy.py", "host/services/ssh/"},
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


@dataclass(frozen=True)
class Function:
    """A function as the rules see it; a method's `self` does not count."""

    name: str
    line: int
    length: int
    positional: int
    parameters: int
    is_annotated: bool


@dataclass(frozen=True)
class File:
    """What the rules ask of a file, so that each is read once; lists go with the line of each."""

    place: str
    lines: int
    docstring: str
    imports: list[tuple[int, str]]
    attributes: list[tuple[int, str]]
    calls: list[tuple[int, str]]
    caught: list[tuple[int, set[str]]]
    global_lines: list[int]
    functions: list[Function]


def dotted(node: ast.expr | None) -> str:
    """`name` or `module.name`; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports_of(node: ast.Import | ast.ImportFrom) -> list[tuple[int, str]]:
    """Line and dotted name of what a statement imports."""
    if isinstance(node, ast.Import):
        return [(node.lineno, name.name) for name in node.names]
    return [(node.lineno, f"{'.' * node.level}{node.module}.{name.name}") for name in node.names]


def caught_by(node: ast.ExceptHandler) -> set[str]:
    return {dotted(part) for part in ast.walk(node.type) if isinstance(part, ast.expr)} if node.type else {"everything"}


def function_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    asked = node.args
    positional = [a.arg for a in (*asked.posonlyargs, *asked.args) if a.arg not in ("self", "cls")]
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    parameters = len(positional) + len(asked.kwonlyargs)
    return Function(node.name, node.lineno, length, len(positional), parameters, node.returns is not None)


@functools.cache
def file_of(path: Path) -> File:
    text = path.read_text("utf-8")
    tree = ast.parse(text, str(path))
    nodes: dict[type[ast.AST], list[Any]] = defaultdict(list)
    for node in ast.walk(tree):
        nodes[type(node)].append(node)
    return File(
        place=place_of(path),
        lines=text.count("\n"),
        docstring=ast.get_docstring(tree) or "",
        imports=[found for node in (*nodes[ast.Import], *nodes[ast.ImportFrom]) for found in imports_of(node)],
        attributes=[(node.lineno, node.attr) for node in nodes[ast.Attribute]],
        calls=[(node.lineno, dotted(node.func)) for node in nodes[ast.Call]],
        caught=[(node.lineno, caught_by(node)) for node in nodes[ast.ExceptHandler]],
        global_lines=[node.lineno for node in nodes[ast.Global]],
        functions=[function_of(node) for node in (*nodes[ast.FunctionDef], *nodes[ast.AsyncFunctionDef])],
    )


def place_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else TOP))


def at_home(file: File, homes: set[str]) -> bool:
    return any(file.place == home or (home.endswith("/") and file.place.startswith(home)) for home in homes)


def hold(broken: Iterable[str]) -> None:
    """Fail with every place that breaks a rule."""
    told = "\n".join(broken)
    assert not told, f"\n{told}"


def source_files() -> list[File]:
    return [file_of(path) for path in SOURCES]


def all_files() -> list[File]:
    return [file_of(path) for path in EVERY_FILE]


def test_a_room_looks_only_down() -> None:
    def broken(file: File) -> Iterable[str]:
        home = file.place.partition("/")[0]
        if "/" not in file.place:
            if home not in TOP_FILES:
                yield f"{file.place} stands in no room"
            return
        for line, name in file.imports:
            package, room, *_ = [*name.split("."), "", ""]
            if package == "kohakuriver" and room in LAYERS and room not in LAYERS[home]:
                yield f"{file.place}:{line}: {home}/ reaches into {room}/"
            elif package == "kohakuriver" and room not in (*LAYERS, "", "__version__", LAUNCHER):
                yield f"{file.place}:{line}: imports {name}"

    hold(told for file in source_files() for told in broken(file))


def test_imports_say_the_whole_name() -> None:
    hold(
        f"{file.place}:{line}: {name}" for file in source_files() for line, name in file.imports if name.startswith(".")
    )


def test_modules_that_touch_the_world_stay_at_home() -> None:
    def strays(file: File, uses: list[tuple[int, str]], homes: Mapping[str, set[str]]) -> Iterable[str]:
        return (
            f"{file.place}:{line}: {name}" for line, name in uses if name in homes and not at_home(file, homes[name])
        )

    for file in source_files():
        hold(strays(file, [(line, name.partition(".")[0]) for line, name in file.imports], HOMES))
        hold(strays(file, file.calls, CALLS))


def test_nothing_is_served_but_what_stands_in_a_table() -> None:
    served = {file.place for file in source_files() for _, name in file.attributes if name in ("router", "add_routes")}
    assert served == {"wire/serve.py"}


def test_the_vocabulary_is_standard_library_without_io() -> None:
    for file in source_files():
        if not file.place.startswith("model/"):
            continue
        for line, name in file.imports:
            package = name.partition(".")[0]
            assert package == "kohakuriver" or package in sys.stdlib_module_names, f"{file.place}:{line}: {name}"
            assert not {package, name, name.rpartition(".")[0]} & NOT_IN_MODEL, f"{file.place}:{line}: {name}"
        called = {name for _, name in file.calls} & {"open", "print", "input", "exec", "eval"}
        assert not called, f"{file.place}: calls {called}"


def test_everything_is_caught_in_two_places_only() -> None:
    hold(
        f"{file.place}:{line}: catches everything"
        for file in source_files()
        for line, caught in file.caught
        if caught & {"Exception", "BaseException", "everything"} and file.place not in MAY_CATCH_EVERYTHING
    )


def test_background_work_is_started_by_the_supervisor_only() -> None:
    hold(
        f"{file.place}:{line}: {name} outside the supervisor"
        for file in source_files()
        for line, name in file.attributes
        if name in ("create_task", "ensure_future") and file.place not in MAY_CREATE_TASKS
    )


def test_no_module_variable_is_changed_from_a_function() -> None:
    hold(f"{file.place}:{line}: global" for file in all_files() for line in file.global_lines)


def test_a_file_says_what_it_is_for() -> None:
    hold(
        f"{file.place} does not say what it is for"
        for file in all_files()
        if file.lines and not file.docstring.split("\n\n")[0].rstrip().endswith((".", "?", ":"))
    )


def test_a_file_has_a_name_that_says_what_it_is_for() -> None:
    hold(str(path) for path in EVERY_FILE if {path.stem, *path.relative_to(TOP).parts} & VAGUE)


def test_a_file_is_not_too_long() -> None:
    hold(
        f"{file.place}: {file.lines} lines"
        for file in all_files()
        if file.lines > MAX_FILE_LINES and file.place != "build.py"  # the one developer tool is one file
    )


def test_a_function_is_not_too_long() -> None:
    hold(
        f"{file.place}:{function.line}: {function.name} has {function.length} lines"
        for file in all_files()
        for function in file.functions
        if function.length > MAX_FUNCTION_LINES
    )


def test_a_function_takes_few_parameters() -> None:
    def takes_few(function: Function) -> bool:
        is_test = function.name.startswith("test_")  # which names the fixtures and parameters that it needs
        return function.parameters <= MAX_PARAMETERS and (is_test or function.positional <= MAX_POSITIONAL)

    hold(
        f"{file.place}:{function.line}: {function.name}"
        for file in all_files()
        for function in file.functions
        if not takes_few(function)
    )


def test_everything_is_annotated() -> None:
    hold(
        f"{file.place}:{function.line}: {function.name}"
        for file in source_files()
        for function in file.functions
        if not function.is_annotated
    )


def test_most_functions_are_short() -> None:
    lengths = [function.length for file in source_files() for function in file.functions]
    assert statistics.median(lengths) < MEDIAN_FUNCTION_LINES


def test_the_top_level_is_what_the_readme_says_it_is() -> None:
    shown = {path.name for path in TOP.iterdir() if not path.name.startswith(".")}
    made = {"dist", "build", "__pycache__"}  # by build.py, and by Python for it
    assert shown - made == {"kohakuriver", "build.py", "tests", "systemd", "README.md", "setup.cfg"}
