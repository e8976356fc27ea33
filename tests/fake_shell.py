"""A tiny piece of the shell, interpreted, so that one command means the same on the fake engine and on real ones.

Programs: true false : echo printf sleep exit trap kill wait exec pwd cat head tail yes nproc, and `sh -c SCRIPT NAME ARG...`.
In a script: `;`, newline, `&`, `&&`, `>&2`, both quotes, backslash, `$NAME`, `$1`, `$@`, `$$`. `cat` and `head -c N FILE`
know only /dev/null and /dev/zero; `tail /dev/zero` eats memory without end. Anything else ends as in a shell: 127.
"""

import os
import re
import signal
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

PROGRAMS = frozenset(
    (
        "sh",
        "true",
        "false",
        ":",
        "echo",
        "printf",
        "sleep",
        "exit",
        "trap",
        "kill",
        "wait",
        "exec",
        "pwd",
        "cat",
        "head",
    )
    + ("tail", "yes", "nproc")
)
BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Print:
    """Bytes to stdout (1) or stderr (2)."""

    descriptor: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for so long; `inf` is until a signal comes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Die:
    """End by a signal."""

    number: int


@dataclass(frozen=True, slots=True)
class EatMemory:
    """Ask for memory until there is none."""


Step = Print | Sleep | Die | EatMemory


@dataclass(frozen=True, slots=True)
class Statement:
    """One simple command of a script, expanded."""

    words: tuple[str, ...]
    to_stderr: bool = False
    background: bool = False
    only_after_success: bool = False


class Exited(Exception):
    """`exit N` was reached."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Program:
    """A running program: iterate `steps()`, send `signal()` between the steps."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    cpu_count: int = 2
    traps: dict[int, str] = field(default_factory=dict)
    background_seconds: float = 0.0

    def knows_program(self) -> bool:
        """Whether the first word is a program that exists here."""
        return os.path.basename(self.command[0]) in PROGRAMS

    def steps(self) -> Iterator[Step | int]:
        """Every step in order, and the exit code as the last."""
        try:
            code = yield from self._run(Statement(self.command))
        except Exited as exited:
            code = exited.code
        yield code

    def after(self, number: int) -> Iterator[Step | int] | None:
        """What runs when the signal comes: None for nothing at all (it is ignored), else the trap or the end."""
        if number in self.traps and number != signal.SIGKILL:
            return self._trap(self.traps[number]) if self.traps[number] else None
        if number in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, 0):
            return None
        return iter([Die(number)])

    def _trap(self, script: str) -> Iterator[Step | int]:
        try:
            yield from self._script(script, ("sh",))
        except Exited as exited:
            yield exited.code

    def _script(self, text: str, arguments: tuple[str, ...]) -> Generator[Step, None, int]:
        code = 0
        for statement in parse(text, self.env, arguments):
            if statement.only_after_success and code != 0:
                continue
            if statement.background:
                self.background_seconds = _seconds(statement.words[1:]) if statement.words[0] == "sleep" else 0.0
                code = 0
            else:
                code = yield from self._run(statement)
        return code

    def _run(self, statement: Statement) -> Generator[Step, None, int]:
        name, *rest = statement.words
        output = 2 if statement.to_stderr else 1
        match os.path.basename(name):
            case "sh" if rest[:1] == ["-c"]:
                return (yield from self._script(rest[1], tuple(rest[2:]) or ("sh",)))
            case "exec":
                raise Exited((yield from self._run(Statement(tuple(rest), statement.to_stderr))))
            case "exit":
                raise Exited(int(rest[0]) & 255 if rest else 0)
            case "sleep":
                yield Sleep(_seconds(rest))
            case "wait":
                yield Sleep(self.background_seconds)
            case "trap":
                self.traps |= {_signal_number(word): rest[0] for word in rest[1:]}
            case "kill":
                yield Die(_signal_number(rest[0].lstrip("-")))
            case "tail" if rest == ["/dev/zero"]:
                yield EatMemory()
            case "yes":
                yield Print(output, b"y\n" * BLOCK)
                yield Sleep(float("inf"))
            case known if known in PROGRAMS:
                yield from (Print(output, part) for part in self._text(known, rest))
                return int(known == "false")
            case _:
                yield Print(2, f"sh: {name}: not found\n".encode())
                return 127
        return 0

    def _text(self, name: str, rest: list[str]) -> Iterator[bytes]:
        match name:
            case "echo":
                yield b" ".join(map(os.fsencode, rest)) + b"\n"
            case "printf":
                yield _printf(rest[0], rest[1:])
            case "pwd":
                yield self.working_dir.encode() + b"\n"
            case "nproc":
                yield b"%d\n" % self.cpu_count
            case "head" if rest[-1:] == ["/dev/zero"]:
                left = int(rest[1])
                while left > 0:
                    yield bytes(min(left, BLOCK))
                    left -= BLOCK


def parse(text: str, env: Mapping[str, str], arguments: tuple[str, ...]) -> list[Statement]:
    """Cut a script into statements, words expanded; `arguments` are `$0`, `$1`, ..."""
    found: list[Statement] = []
    words: list[str] = []
    to_stderr = after_success = False
    for kind, value in [*_tokens(text, env, arguments), ("end", ";")]:
        if kind == "word":
            words.append(value)
        elif value == ">&2":
            to_stderr = True
        else:
            if words:
                found.append(Statement(tuple(words), to_stderr, value == "&", after_success))
            words, to_stderr, after_success = [], False, value == "&&"
    return found


_TOKEN = re.compile(
    r"(?P<blank>[ \t]+)|(?P<operator>1?>&2|&&|[;&\n])|'(?P<single>[^']*)'"
    r'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<variable>\$(?:[A-Za-z_]\w*|[@$0-9]))|(?P<plain>[^\s;&\'"\\$]+)',
    re.DOTALL,
)


def _tokens(text: str, env: Mapping[str, str], arguments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    word: list[str] | None = None
    for match in _TOKEN.finditer(text):
        kind, value = str(match.lastgroup), match[str(match.lastgroup)]
        if kind in ("blank", "operator"):
            if word is not None:
                yield "word", "".join(word)
            word = None
            if kind == "operator":
                yield "operator", value.removeprefix("1")
        elif kind == "double" and value == "$@":
            yield from (("word", argument) for argument in arguments[1:])
        else:
            word = [*(word or []), _expanded(kind, value, env, arguments)]
    if word is not None:
        yield "word", "".join(word)


def _expanded(kind: str, value: str, env: Mapping[str, str], arguments: tuple[str, ...]) -> str:
    if kind == "variable":
        return _variable(value[1:], env, arguments)
    if kind == "double":
        filled = re.sub(r"\$([A-Za-z_]\w*|[@$0-9])", lambda found: _variable(found[1], env, arguments), value)
        return re.sub(r'\\(["\\$`])', r"\1", filled)
    return value


def _variable(name: str, env: Mapping[str, str], arguments: tuple[str, ...]) -> str:
    if name == "$":
        return "1"
    if name == "@":
        return " ".join(arguments[1:])
    if name.isdigit():
        return arguments[int(name)] if int(name) < len(arguments) else ""
    return env.get(name, "")


def _seconds(words: tuple[str, ...] | list[str]) -> float:
    return float("inf") if words[0] == "infinity" else float(words[0])


def _signal_number(word: str) -> int:
    return int(word) if word.isdigit() else int(signal.Signals[f"SIG{word.removeprefix('SIG')}"])


_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\"}


def _printf(text: str, values: list[str]) -> bytes:
    left, out, fills = list(values), b"", True
    while fills:
        before = len(left)
        out += re.sub(
            rb"\\([0-7]{1,3}|[ntr\\])|%([s%])",
            lambda found: _printf_piece(found[1], found[2], left),
            os.fsencode(text),
        )
        fills = bool(left) and len(left) < before
    return out


def _printf_piece(escape: bytes | None, conversion: bytes | None, left: list[str]) -> bytes:
    if escape is not None:
        return _ESCAPES.get(escape) or bytes([int(escape, 8) & 255])
    if conversion == b"%":
        return b"%"
    return os.fsencode(left.pop(0)) if left else b""
