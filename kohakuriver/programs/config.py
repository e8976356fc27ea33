"""`kohakuriver config`: what is set and by whom, an example file, completion for the shell, the reference."""

import argparse
import dataclasses
import json

from kohakuriver.client.complaints import Parser
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings import PROGRAMS, file_key
from kohakuriver.model.settings_text import example_file, literal, reference_table
from kohakuriver.programs.setting_flags import load_from
from kohakuriver.system.config_file import DEFAULT, WITH_FILE, Loaded

HIDDEN = "(hidden)"


def run(arguments: list[str]) -> int:
    """Print what is asked for."""
    asked = _parser().parse_args(arguments[1:])
    if asked.what == "show":
        show(asked)
    elif asked.what == "example":
        print(example_file(asked.program), end="")
    elif asked.what == "reference":
        print(reference_table(asked.program), end="")
    else:
        from kohakuriver.client.completion import completion_script

        print(completion_script(asked.shell), end="")
    return 0


def show(asked: argparse.Namespace) -> None:
    """The values in force and who set each, for one program or for all."""
    if asked.config and not asked.program:
        raise BadRequest("--config: say whose file it is: `config show host` or `config show runner`")
    told = {program: load_from(program, asked) for program in ([asked.program] if asked.program else PROGRAMS)}
    if asked.json:
        print(json.dumps({program: _as_json(loaded) for program, loaded in told.items()}, indent=2))
        return
    for program, loaded in told.items():
        read = f"file {loaded.file}" if loaded.file else "no file is read"
        print(f"{program}: {read}" if program in WITH_FILE else f"{program}: environment and flags only")
        rows = _rows(loaded)
        wide = max(len(key) for key, _, _ in rows)
        for key, value, origin in rows:
            print(f"  {key:<{wide}} = {value if value is HIDDEN else literal(value)}   [{origin}]")


def _as_json(loaded: Loaded[object]) -> dict[str, object]:
    values = {key: {"value": value, "set_by": origin} for key, value, origin in _rows(loaded)}
    return {"file": str(loaded.file) if loaded.file else None, "settings": values}


def _rows(loaded: Loaded[object]) -> list[tuple[str, object, str]]:
    rows = []
    for field in dataclasses.fields(loaded.settings):  # type: ignore[arg-type]
        value, origin = getattr(loaded.settings, field.name), loaded.origins[field.name]
        secret = field.metadata["secret"] and origin != DEFAULT
        rows.append((file_key(field.name), HIDDEN if secret else value, origin))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = Parser("kohakuriver config", description=__doc__, allow_abbrev=False)
    whats = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    shown = whats.add_parser("show", help="every value in force and who set it", allow_abbrev=False)
    shown.add_argument("program", nargs="?", choices=list(PROGRAMS), metavar="host|runner|client")
    shown.add_argument("--config", metavar="FILE", help="the configuration file, instead of the default one")
    shown.add_argument("--json", action="store_true", help="for programs to read")
    for what, about in {"example": "a commented file with every key", "reference": "a Markdown table of them"}.items():
        made = whats.add_parser(what, help=about, allow_abbrev=False)
        made.add_argument("program", choices=list(WITH_FILE if what == "example" else PROGRAMS))
    completion = whats.add_parser("completion", help="a script that completes commands in the shell")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    return parser
