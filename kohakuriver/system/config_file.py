"""A program's settings as they are in force: defaults < Python file < environment < flags, and who set each.

The file is run as Python, so one that another user could have written is refused before it is read.
"""

import ast
import dataclasses
import difflib
import os
import stat
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Generic, TypeVar, get_origin

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from kohakuriver.model.settings import PROGRAMS, environment_name, file_key, flag_name
from kohakuriver.model.units import parse_bytes

S = TypeVar("S")
DEFAULT = "default"
GENERATOR = "config_gen"
MAX_FILE_BYTES = 1_000_000
MAX_LINKS = 40
WITH_FILE = ("host", "runner")  # the client has only variables and flags
FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
# What a person's file may raise by mistake; each becomes one line that names the place.
MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings may come from besides their defaults; `flags` hold texts by field name, None when not given."""

    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Settings with the origin of each value by field name: `default`, FILE:LINE, a variable or a flag."""

    settings: S
    origins: Mapping[str, str]
    file: Path | None


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that somebody set; `blame` begins the message when it is wrong."""

    name: str
    value: Any
    origin: str
    blame: str


def default_file(program: str) -> Path:
    """Where the file of a program lies when nobody says otherwise."""
    return Path("~/.kohakuriver").expanduser() / f"{program}_config.py"


def find_file(program: str, asked: str | None) -> Path | None:
    """The file to read: the one asked for (absent: NotFound), else the default one when it is there."""
    if asked is not None:
        path = Path(asked).expanduser()
        if not path.exists():
            raise NotFound(f"{path}: there is no such configuration file")
        return path
    path = default_file(program)
    return path if path.exists() else None


def load(kind: type[S], sources: Sources) -> Loaded[S]:
    """The settings of one program; raises BadRequest that names the file and line, the variable or the flag."""
    values: dict[str, Any] = {}
    origins = {f.name: DEFAULT for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for given in _all_given(kind, sources):
        values[given.name] = _checked(kind, given)
        origins[given.name] = given.origin
    return Loaded(codec.decode(kind, values), origins, sources.file)


def _all_given(kind: type, sources: Sources) -> Iterator[_Given]:
    if sources.file is not None:
        yield from _from_file(kind, sources.file)
    hints = codec.hints_of(kind)
    for name, hint in hints.items():
        variable = environment_name(name)
        if variable in sources.environment:
            yield _Given(name, parse_text(name, hint, sources.environment[variable]), variable, variable)
    for name, hint in hints.items():
        text = sources.flags.get(name)
        if text is not None:
            yield _Given(name, parse_text(name, hint, text), flag_name(name), flag_name(name))


def parse_text(name: str, hint: Any, text: str) -> Any:
    """The value that a text of the environment or the command line means; what does not parse stays text."""
    if hint is bool:
        return FLAG_WORDS.get(text.lower(), text)
    if get_origin(hint) is list:
        return [part for part in text.split(",") if part]
    if hint in (int, float):
        try:
            return parse_bytes(text) if name.endswith("_bytes") else hint(text)
        except ValueError:
            return text
    return text


def _checked(kind: type, given: _Given) -> Any:
    try:
        return getattr(codec.decode(kind, {given.name: given.value}), given.name)
    except BadRequest as wrong:
        raise BadRequest(f"{given.blame}{str(wrong).removeprefix(given.name)}") from None


def _from_file(kind: type, path: Path) -> list[_Given]:
    refuse_unsafe(path)
    tree, code = _compiled(path)
    try:
        found = _run(code, path)
    except MISTAKES as mistake:
        raise BadRequest(f"{path}:{_line_of(mistake, path)}: {type(mistake).__name__}: {mistake}") from None
    names = {file_key(f.name): f.name for f in dataclasses.fields(kind)}
    lines = _Lines(tree)
    given = []
    for key, (value, generated) in found.items():
        origin = f"{path}:{lines.of_key(key, generated)}"
        if key in names:
            given.append(_Given(names[key], _plain(value), origin, f"{origin}: {key}"))
        elif key not in lines.imported:
            raise BadRequest(f"{origin}: {key}: {_unknown(key, kind)}")
    return given


def _compiled(path: Path) -> tuple[ast.Module, CodeType]:
    try:
        with path.open("rb") as file:
            source = file.read(MAX_FILE_BYTES + 1)
    except OSError as why:
        raise NotAllowed(f"{path}: {why.strerror}") from None
    if len(source) > MAX_FILE_BYTES:
        raise BadRequest(f"{path}: larger than {MAX_FILE_BYTES} bytes, so not a configuration file")
    try:
        tree = ast.parse(source, str(path))
        return tree, compile(tree, str(path), "exec")
    except SyntaxError as wrong:
        raise BadRequest(f"{path}:{wrong.lineno or 1}: {wrong.msg}") from None
    except (ValueError, RecursionError, MemoryError) as wrong:
        raise BadRequest(f"{path}: not Python text: {wrong}") from None


def _run(code: CodeType, path: Path) -> dict[str, tuple[Any, bool]]:
    """Upper-case names and values that the file sets, and whether `config_gen` gave them (it has the last word)."""
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(code, namespace)  # noqa: S102  the file is Python by design, and nobody else could have written it
    found = {key: (value, False) for key, value in namespace.items() if key.isupper() and not key.startswith("_")}
    generate = namespace.get(GENERATOR)
    if generate is None:
        return found
    generated = generate()
    if not isinstance(generated, Mapping):
        raise TypeError(f"{GENERATOR}() must return a mapping, not {type(generated).__name__}")
    return found | {str(key): (value, True) for key, value in generated.items()}


def _plain(value: Any) -> Any:
    """A value as the checks want it: people write paths and tuples too."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _unknown(key: str, kind: type) -> str:
    for program, other in PROGRAMS.items():
        if program in WITH_FILE and other is not kind and key in map(file_key, codec.hints_of(other)):
            return f"is a setting of the {program}, not of this program"
    near = difflib.get_close_matches(key.upper(), map(file_key, codec.hints_of(kind)), n=1)
    return "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


class _Lines:
    """Which line of a file sets which name."""

    def __init__(self, tree: ast.Module) -> None:
        self.imported: set[str] = set()
        self._assigned: dict[str, int] = {}
        self._generated: dict[str, int] = {}
        for node in ast.walk(tree):
            self._look_at(node)
            if isinstance(node, ast.FunctionDef) and node.name == GENERATOR:
                self._look_into(node)

    def of_key(self, key: str, generated: bool) -> int:
        """The last line that sets the key; 1 when it is made in a way that cannot be seen from outside."""
        if generated:
            return self._generated.get(key, self._generated.get("", 1))
        return self._assigned.get(key, 1)

    def _look_at(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._assigned[node.id] = max(node.lineno, self._assigned.get(node.id, 0))
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self._assigned[node.name] = node.lineno
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound = {(name.asname or name.name).partition(".")[0] for name in node.names}
            self.imported |= bound
            self._assigned |= dict.fromkeys(bound, node.lineno)

    def _look_into(self, generator: ast.FunctionDef) -> None:
        self._generated[""] = generator.lineno
        for node in ast.walk(generator):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._generated[node.value] = node.lineno
            elif isinstance(node, ast.keyword) and node.arg:
                self._generated[node.arg] = node.value.lineno


def _line_of(mistake: BaseException, path: Path) -> int:
    """The deepest line of the file that the mistake went through."""
    frames = traceback.extract_tb(mistake.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(path) and f.lineno), 1)


def refuse_unsafe(path: Path) -> None:
    """Raise NotAllowed when somebody else could have written the file, or put another in its place."""
    for step in _steps(path.absolute()):
        try:
            status = step.lstat()
        except OSError as why:
            raise NotAllowed(f"{step}: {why.strerror}") from None
        if status.st_uid not in (0, os.geteuid()):
            raise NotAllowed(f"{path} is not used, because {step} belongs to user id {status.st_uid}")
        sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022 and not sticky_folder:
            raise NotAllowed(f"{path} is not used, because other users can write to {step} (chmod go-w {step})")
    if not path.is_file():
        raise NotAllowed(f"{path} is not a file")


def _steps(path: Path) -> Iterator[Path]:
    """Every directory, link and file that is passed on the way to `path`."""
    at, rest, links = Path("/"), list(path.parts[1:]), 0
    yield at
    while rest:
        name = rest.pop(0)
        if name == "..":
            at = at.parent
            continue
        yield at / name
        if not (at / name).is_symlink():
            at = at / name
            continue
        links += 1
        if links > MAX_LINKS:
            raise NotAllowed(f"{path}: too many links")
        target = (at / name).readlink()
        at, rest = (Path("/") if target.is_absolute() else at), [*target.parts[target.is_absolute() :], *rest]
