"""`kohakuriver install` and `uninstall`: the host or the runner as a service of this machine."""

import argparse
from pathlib import Path

from kohakuriver.client.complaints import Parser
from kohakuriver.launcher import running_archive
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings_text import example_file
from kohakuriver.system.install import InstallOrder, UninstallOrder, install, uninstall


def run(arguments: list[str]) -> int:
    """Say and do each step; with --dry-run only say it."""
    verb = arguments[0]
    asked = _parser(verb).parse_args(arguments[1:])
    root = Path(asked.root)
    if verb == "uninstall":
        return uninstall(
            UninstallOrder(program=asked.program, root=root, dry_run=asked.dry_run, purge=asked.purge), print
        )
    archive = running_archive()
    if archive is None:
        raise BadRequest("only the built kohakuriver.pyz can install itself: build it with `python3 build.py`")
    text = example_file(asked.program)
    order = InstallOrder(
        program=asked.program, pyz_path=archive, example_config_text=text, root=root, dry_run=asked.dry_run
    )
    return install(order, print)


def _parser(verb: str) -> argparse.ArgumentParser:
    about = {
        "install": "Place program, systemd unit, user, directories and an example configuration.",
        "uninstall": "Take away what `install` placed; configuration and data stay.",
    }
    parser = Parser(f"kohakuriver {verb}", description=about[verb], allow_abbrev=False)
    parser.add_argument("program", choices=["host", "runner"])
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--root", default="/", metavar="DIR", help="a system below another directory (an image)")
    if verb == "uninstall":
        parser.add_argument("--purge", action="store_true", help="take configuration, data and the user away too")
    return parser
