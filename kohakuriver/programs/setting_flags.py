"""Options of the command line that are computed from a program's settings."""

import argparse
import dataclasses
import os
from typing import Any

from kohakuriver.model import codec
from kohakuriver.model.settings import PROGRAMS, flag_name
from kohakuriver.model.settings_text import default_of, literal
from kohakuriver.system.config_file import Loaded, Sources, default_file, find_file, load


def add_flags(parser: argparse.ArgumentParser, program: str) -> None:
    """One option for each setting that is not secret (those would show in the list of processes), and --config."""
    parser.add_argument("--config", metavar="FILE", help=f"the configuration file (default: {default_file(program)})")
    kind = PROGRAMS[program]
    hints = codec.hints_of(kind)
    for field in dataclasses.fields(kind):
        if not field.metadata["secret"]:
            about = f"{field.metadata['about']} ({literal(default_of(field))})".replace("%", "%%")
            switch: dict[str, Any] = {"nargs": "?", "const": "true"} if hints[field.name] is bool else {}
            parser.add_argument(flag_name(field.name), dest=field.name, metavar="VALUE", help=about, **switch)


def load_from(program: str, parsed: argparse.Namespace) -> Loaded[object]:
    """The settings of a program from its file, the environment and the parsed options."""
    flags = {f.name: getattr(parsed, f.name, None) for f in dataclasses.fields(PROGRAMS[program])}
    file = find_file(program, parsed.config) if program != "client" else None
    return load(PROGRAMS[program], Sources(file, os.environ, flags))
