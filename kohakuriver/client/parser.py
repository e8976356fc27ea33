"""The command line taken apart: one parser for each noun and verb, made only where it is needed."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from kohakuriver.client.command import Command
from kohakuriver.client.commands import NOUNS, Noun
from kohakuriver.client.complaints import Parser
from kohakuriver.client.flags import add_options, telling
from kohakuriver.client.output import terminal_size
from kohakuriver.model.codec import hints_of
from kohakuriver.model.settings import PROGRAMS, ClientSettings, flag_name

if TYPE_CHECKING:
    from kohakuriver.client.manual import Program

PROG = "kohakuriver"
W = TypeVar("W", Noun, Command[Any, Any])
SubParsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
MIN_WIDTH, MAX_WIDTH = 40, 100
GLOBAL = "client_"  # before the names of the options that every command has


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, found out without the modules that argparse would load for it."""

    def __init__(self, prog: str, **options: Any) -> None:
        width = min(MAX_WIDTH, terminal_size(sys.stdout, os.environ)[0] - 2)
        super().__init__(prog, **{"width": max(width, MIN_WIDTH), **options})


def build_parser(typed: Collection[str] | None = None) -> Parser:
    """The parser of every word that `kohakuriver` takes; with `typed`, only of what these words can mean."""
    parser = _parser(PROG)
    _add_globals(parser)
    nouns = parser.add_subparsers(dest="noun", metavar="COMMAND", prog=parser.prog, parser_class=Parser)
    for noun in _meant(NOUNS, typed, lambda noun: noun.word):
        settings = _settings(f"{PROG} {noun.word}")
        _add_noun(nouns.add_parser(noun.word, help=noun.about, **settings), noun, typed)
    if typed is None:
        from kohakuriver.client import manual

        for program in manual.PROGRAMS:
            settings = _settings(f"{PROG} {program.word}")
            _add_program(nouns.add_parser(program.word, help=program.about, **settings), program)
    return parser


def _meant(table: Iterable[W], typed: Collection[str] | None, words: Callable[[W], str]) -> list[W]:
    """The entries that were typed; all of them when none was, so that the complaint can name them."""
    entries = list(table)
    return [
        entry for entry in entries if typed is not None and all(w in typed for w in words(entry).split())
    ] or entries


def with_manual(parser: Parser) -> Parser:
    """The same parser, with the whole manual as its help."""
    from kohakuriver.client import manual

    parser.text = manual.text({noun: noun.commands() for noun in NOUNS})
    return parser


def _parser(prog: str) -> Parser:
    return Parser(**_settings(prog))


def _settings(prog: str) -> dict[str, Any]:
    return {"prog": prog, "allow_abbrev": False, "formatter_class": Formatter}


def _add_noun(parser: argparse.ArgumentParser, noun: Noun, typed: Collection[str] | None) -> None:
    if typed is not None and noun.word not in typed:
        return
    commands = noun.commands()
    if not commands[0].verb:
        _add_command(parser, commands[0])
        return
    parser.usage = f"{parser.prog} COMMAND …"
    parser.description = f"{noun.about[0].upper()}{noun.about[1:]}."
    parser.epilog = f"`{parser.prog} COMMAND --help` tells more, with examples."
    verbs = _verbs(parser, "verb")
    groups: dict[str, SubParsers] = {}
    for command in _meant(commands, typed, lambda command: command.verb):
        group, space, word = command.verb.rpartition(" ")
        if space and group not in groups:
            groups[group] = _add_group(verbs, f"{parser.prog} {group}", commands)
        settings = _settings(f"{parser.prog} {command.verb}")
        leaf = groups.get(group, verbs).add_parser(word, help=command.summary.rstrip("."), **settings)
        if typed is None or word in typed:
            _add_command(leaf, command)


def _verbs(parser: argparse.ArgumentParser, name: str) -> SubParsers:
    return parser.add_subparsers(dest=name, metavar="COMMAND", title="commands", prog=parser.prog, parser_class=Parser)


def _add_group(verbs: SubParsers, prog: str, commands: Iterable[Command[Any, Any]]) -> SubParsers:
    """The parser of a word that only leads on to others."""
    word = prog.rpartition(" ")[2]
    others = [command.verb.partition(" ")[2] for command in commands if command.verb.startswith(f"{word} ")]
    parser = verbs.add_parser(word, help=f"{word} {', '.join(others)}", **_settings(prog))
    parser.usage = f"{prog} COMMAND …"
    return _verbs(parser, "word")


def _add_command(parser: argparse.ArgumentParser, command: Command[Any, Any]) -> None:
    add_options(parser, command.form)
    for flag in command.extra:
        options = dict(flag.options)
        if "type" in options:
            options["type"] = telling(options["type"])
        action = parser.add_argument(*flag.words, help=flag.about.replace("%", "%%"), **options)
        action.complete = flag.complete  # type: ignore[attr-defined]
    _add_globals(parser)
    parser.description, parser.epilog = command.summary, command.more or None
    parser.usage = " ".join([parser.prog, "[OPTIONS]", *map(_shown, parser._get_positional_actions())])
    parser.set_defaults(command=command, leaf=parser)


def _shown(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    return {"+": f"{name}…", "*": f"[{name}…]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _add_globals(parser: argparse.ArgumentParser) -> None:
    """Options that stand before or after the command's words."""
    group = parser.add_argument_group("which host, and how to answer")
    for member in fields(ClientSettings):
        if member.metadata["secret"]:  # it would stand in the list of processes
            continue
        about = member.metadata["about"] + (f" ({member.default})" if member.default else "")
        takes: dict[str, Any] = {"metavar": member.name.upper()}
        if member.default is False:
            takes = {"action": "store_const", "const": "true"}
        group.add_argument(
            flag_name(member.name), dest=GLOBAL + member.name, help=about, default=argparse.SUPPRESS, **takes
        )
    group.add_argument(
        "--json", dest="as_json", action="store_true", help="print the host's answer as JSON", default=argparse.SUPPRESS
    )


def _add_program(parser: argparse.ArgumentParser, program: "Program") -> None:
    """What the shell can complete of a program that is no client command; the program itself reads its options."""
    if program.words:
        parser.add_argument("what", choices=program.words)
    if program.word in PROGRAMS:
        kind = PROGRAMS[program.word]
        for member in fields(kind):
            if not member.metadata["secret"]:
                takes: dict[str, Any] = {"action": "store_true"} if hints_of(kind)[member.name] is bool else {}
                parser.add_argument(flag_name(member.name), help=member.metadata["about"].replace("%", "%%"), **takes)
