"""`kohakuriver version`: which release this is, and on what it runs."""

import json
import platform

from kohakuriver import __version__
from kohakuriver.client.complaints import Parser


def run(arguments: list[str]) -> int:
    """Print one line."""
    parser = Parser("kohakuriver version", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as JSON")
    asked = parser.parse_args(arguments[1:])
    found = {"version": __version__, "python": platform.python_version(), "machine": platform.machine()}
    told = "kohakuriver {version} (Python {python}, {machine})".format_map(found)
    print(json.dumps(found) if asked.json else told)
    return 0
