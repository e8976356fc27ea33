"""One run of the client: the command line in, an exit code out."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kohakuriver.client.command import Notes, Order
from kohakuriver.client.commands import with_default_verb
from kohakuriver.client.complaints import Parser, refuse_strays
from kohakuriver.client.output import screen_of
from kohakuriver.client.parser import build_parser, with_manual
from kohakuriver.model.errors import BadRequest, RiverError

if TYPE_CHECKING:
    import argparse

INTERRUPTED, PIPE_CLOSED, FAILED = 130, 141, 1  # the first two as a shell counts SIGINT and SIGPIPE
COMPLETE = "__complete"


def run(argv: Sequence[str]) -> int:
    """Do what the words ask for (without the program's name); returns the exit code."""
    own_words = argv[: argv.index("--")] if "--" in argv else argv
    notes = Notes(sys.stderr, "--json" in own_words)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run(argv, notes)
        sys.stdout.flush()
        return code
    except RiverError as error:
        notes.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _hushed(PIPE_CLOSED)
    except OSError as error:  # what comes from the network is a RiverError already
        notes.error(RiverError(f"cannot write the answer: {error.strerror}"))
        return _hushed(FAILED)


def _hushed(code: int) -> int:
    """Give the flush at exit somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(argv: Sequence[str], notes: Notes) -> int:
    if argv[:1] == [COMPLETE]:
        from kohakuriver.client.completion import candidates
        from kohakuriver.client.reach import reach

        sys.stdout.writelines(f"{word}\n" for word in candidates(argv[1:], reach({}, os.environ)))
        return 0
    parsed = _parsed(argv)
    if isinstance(parsed, int):
        return parsed
    from kohakuriver.client.reach import reach
    from kohakuriver.client.session import Session

    settings = reach(vars(parsed), os.environ, parsed.command.enters)
    order = Order(parsed.command, parsed, Session(settings), screen_of(sys.stdout, os.environ), notes)
    try:
        code: int = parsed.command.run(order)
        return code
    finally:
        order.session.close()


def _parsed(argv: Sequence[str]) -> "argparse.Namespace | int":
    """What was typed, or the exit code when the help was all that was wanted."""
    argv = with_default_verb(argv)
    parser = build_parser(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        return _help(parser, asked=bool(argv))
    try:
        parsed, strays = parser.parse_known_args(argv)
    except SystemExit as done:  # argparse has printed the help of a command
        return int(done.code or 0)
    if not hasattr(parsed, "command"):
        words = " ".join(filter(None, ["kohakuriver", parsed.noun, getattr(parsed, "verb", "")]))
        raise BadRequest(f"a command is missing: `{words} --help` shows them")
    refuse_strays(parsed, strays)
    return parsed


def _help(parser: Parser, asked: bool) -> int:
    print(with_manual(parser).format_help(), end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else BadRequest.exit_code
