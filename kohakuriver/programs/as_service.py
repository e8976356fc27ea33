"""Commands of the superuser that are meant for the installed service of this machine: its settings, its home, its user."""

import argparse
import os
from pathlib import Path

from kohakuriver.system.config_file import default_file
from kohakuriver.system.install_plan import STATE_DIR, config_path
from kohakuriver.system.service_units import unit_name


def as_the_service(program: str, asked: argparse.Namespace) -> str:
    """Act for the service if it is installed here and nothing else is said; returns the line that starts the program.

    Before threads are started: the process takes over the home and the user of the service for all that follows.
    """
    service, home = Path(config_path(program)), Path(STATE_DIR) / program
    means_it = asked.config in (None, str(service)) and os.geteuid() == 0 and service.exists() and home.is_dir()
    if not means_it or (asked.config is None and default_file(program).exists()):
        return f"kohakuriver {program}"
    asked.config = str(service)
    os.environ["HOME"] = str(home)
    owner = home.stat()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    return f"systemctl restart {unit_name(program).removesuffix('.service')}"
