"""The commands a person types."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kohakuriver.client.complaints import Parser


def run(argv: Sequence[str]) -> int:
    """Do what the words ask for (without the program's name); returns the exit code."""
    from kohakuriver.client.cli import run as run_client

    return run_client(list(argv))


def build_parser() -> "Parser":
    """The parser of every word that `kohakuriver` takes."""
    from kohakuriver.client import parser

    return parser.build_parser()
