"""How this very program is started again: by another process, and by a person who pastes a line."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from kohakuriver.launcher import running_archive

NAME = "kohakuriver"
SOURCE_TREE = Path(__file__).resolve().parent.parent.parent


def own_command() -> tuple[str, ...]:
    """The words that start it."""
    archive = running_archive()
    return (sys.executable, str(archive)) if archive else (sys.executable, "-m", NAME)


def own_environment() -> dict[str, str]:
    """The environment in which those words work from any directory."""
    return dict(os.environ) if running_archive() else os.environ | {"PYTHONPATH": str(SOURCE_TREE)}


def typed_command() -> str:
    """What a person types for it: its name where the shell finds it, else its path."""
    archive = running_archive()
    known = shutil.which(NAME)
    if known and (archive is None or Path(known).resolve() == archive):
        return NAME
    if archive is None:
        return f"python3 -m {NAME}"
    return shlex.quote(str(archive)) if os.access(archive, os.X_OK) else f"python3 {shlex.quote(str(archive))}"
