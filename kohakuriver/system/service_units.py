"""The texts of the two systemd units, wherever the program runs from."""

from importlib import resources
from pathlib import Path

PROGRAMS = ("host", "runner")


def unit_name(program: str) -> str:
    """What systemd calls the service of `host` or `runner`."""
    return f"kohakuriver-{program}.service"


def unit_text(program: str) -> str:
    """The unit of `host` or `runner`: from inside the package (the built file), else from the source tree."""
    packaged = resources.files("kohakuriver") / "systemd" / unit_name(program)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "systemd" / unit_name(program)).read_text(encoding="utf-8")
