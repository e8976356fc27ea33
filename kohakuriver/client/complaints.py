"""Complaints about words that were typed: one line, that says what to do."""

import argparse
from typing import Any, NoReturn

from kohakuriver.model.errors import BadRequest


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, raised as BadRequest."""

    text: str = ""  # stands in for the help that would be computed

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message.removeprefix('argument ')} (see `{self.prog} --help`)")

    def format_help(self) -> str:
        return self.text or super().format_help()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise BadRequest(_unknown(self.prog, action, str(value)))


def refuse_strays(parsed: argparse.Namespace, strays: list[str]) -> None:
    """Raise BadRequest when words are left that the command does not know."""
    if strays:
        leaf: argparse.ArgumentParser = parsed.leaf
        options = [option for action in leaf._actions for option in action.option_strings]
        what = "option" if strays[0].startswith("-") else "further word"
        raise BadRequest(f"{leaf.prog} takes no {what} {strays[0][:40]!r}" + _nearest(strays[0], options, leaf.prog))


def _nearest(word: str, known: list[str], prog: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean `{near[0]}`?" if near else f" (see `{prog} --help`)"


def _unknown(prog: str, action: argparse.Action, word: str) -> str:
    known = list(map(str, action.choices or ()))
    what = f"there is no `{prog} {word[:40]}`"
    if not isinstance(action, argparse._SubParsersAction):
        what = f"{'/'.join(action.option_strings) or action.dest}: {word[:40]!r} is not one of {', '.join(known)}"
    return what + _nearest(word, known, prog)
