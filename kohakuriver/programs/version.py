"""`kohakuriver version`: which release this is, and on what it runs."""

import platform

from kohakuriver import __version__


def run(arguments: list[str]) -> int:
    """Print one line."""
    print(f"kohakuriver {__version__} (Python {platform.python_version()}, {platform.machine()})")
    return 0
