"""Settings in writing: the commented example file, and the table for the reference pages."""

import dataclasses
import json
from typing import Any

from kohakuriver.model.settings import PROGRAMS, file_key

HEAD = """\
# KohakuRiver {program}: configuration.
#
# Each key stands here with its default; take away the `#` in front of one to change it.
# This file is Python. Names in upper case are settings, all others are yours; a function `config_gen()`, if there
# is one, returns a mapping of settings that has the last word. Only its owner may be able to write this file.
# KOHAKURIVER_<KEY> in the environment wins over it, and a flag of the command wins over both.
# `kohakuriver config show {program}` tells which value is in force and who set it.
"""


def example_file(program: str) -> str:
    """The commented example file of a program (`host` or `runner`): every key, its meaning and its default."""
    kind = PROGRAMS[program]
    parts = [HEAD.format(program=program)]
    for field in dataclasses.fields(kind):
        parts.append(f"\n# {field.metadata['about']}\n# {file_key(field.name)} = {literal(default_of(field))}\n")
    return "".join(parts)


def reference_table(program: str) -> str:
    """A Markdown table of a program's settings: key, default, meaning."""
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for field in dataclasses.fields(PROGRAMS[program]):
        about = field.metadata["about"].replace("|", "\\|")
        rows.append(f"| `{file_key(field.name)}` | `{literal(default_of(field))}` | {about} |")
    return "\n".join(rows) + "\n"


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The value that a setting has when nobody sets it."""
    return field.default_factory() if callable(field.default_factory) else field.default


def literal(value: Any) -> str:
    """A value as a person would write it in the Python file."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:_}" if value >= 1_000_000 else str(value)
    return json.dumps(value, ensure_ascii=False)
