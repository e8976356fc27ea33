"""Text that is computed from the tables and stands in files: run this module to write it anew, a test compares.

python3 -m kohakuriver.programs.generated
"""

import sys
from pathlib import Path
from typing import Any

from kohakuriver.model import host_api, runner_table
from kohakuriver.model.route import Channel, Route
from kohakuriver.model.settings import PROGRAMS
from kohakuriver.model.settings_text import reference_table

TOP = Path(__file__).resolve().parent.parent.parent
API_PAGE = TOP / "kohakuriver" / "docs" / "api.md"
README = TOP / "README.md"
SETTINGS_MARK = "<!-- settings: written by `python3 -m kohakuriver.programs.generated` -->"
END_MARK = "<!-- end -->"
API_HEAD = """\
# API: every route of the host and of a runner

Requests and answers are JSON; errors are `{"error": {"code", "message", "details"}}`; ids are strings; times are UTC RFC 3339.
The host describes each field at `/api/openapi.json`. A role lets in itself and all greater ones:
anony < viewer < user < operator < admin; `node` is a signed runner or host, and no person has it.
"""


def api_page() -> str:
    """The page of all routes, one line each."""
    host = _routes_table(host_api.ROUTES) + _sockets_table(host_api.CHANNELS)
    runner = _routes_table(runner_table.ROUTES) + _sockets_table(runner_table.CHANNELS)
    return f"{API_HEAD}\n## The host\n\n{host}\n## A runner: only the host may ask, only signed\n\n{runner}"


def settings_section() -> str:
    """The reference of all settings, program by program."""
    parts = [f"**{program}**\n\n{reference_table(program)}" for program in PROGRAMS]
    return "\n" + "\n".join(parts)


def with_settings(readme: str) -> str:
    """The README with its settings section written anew; raises ValueError when it has no place for it."""
    before, found, rest = readme.partition(SETTINGS_MARK)
    _, ended, after = rest.partition(END_MARK)
    if not (found and ended):
        raise ValueError(f"{README} has no {SETTINGS_MARK} … {END_MARK}")
    return f"{before}{SETTINGS_MARK}\n{settings_section()}{END_MARK}{after}"


def main() -> int:
    """Write both files."""
    API_PAGE.write_text(api_page(), "utf-8")
    README.write_text(with_settings(README.read_text("utf-8")), "utf-8")
    return 0


def _routes_table(routes: tuple[Route[Any, Any], ...]) -> str:
    rows = ["| Request | Role | Takes | Gives | What it does |", "|---|---|---|---|---|"]
    for route in routes:
        takes, gives = _type_name(route.takes), _type_name(route.gives)
        rows.append(f"| `{route.method} {route.path}` | {route.needs.label} | {takes} | {gives} | {route.about} |")
    return "\n".join(rows) + "\n"


def _sockets_table(channels: tuple[Channel[Any], ...]) -> str:
    rows = ["", "| Socket | Role | Takes | What it is |", "|---|---|---|---|"]
    rows += [
        f"| `WS {each.path}` | {each.needs.label} | {_type_name(each.takes)} | {each.about} |" for each in channels
    ]
    return "\n".join(rows) + "\n"


def _type_name(kind: Any) -> str:
    inner = getattr(kind, "__args__", None)
    if inner:
        return f"list of {_type_name(inner[0])}"
    name: str = kind.__name__
    return {"Nothing": "–", "ByteStream": "bytes", "PlainText": "text"}.get(name, name)


if __name__ == "__main__":
    sys.exit(main())
