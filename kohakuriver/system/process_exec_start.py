"""The first moments of a process that is started beside a workload: becomes like it, then becomes the program."""

import fcntl
import json
import os
import pwd
import signal
import sys
import termios
from typing import Any, NoReturn

from kohakuriver.system import process_calls

_CGROUPS, _OURS = "/sys/fs/cgroup", "/kohakuriver/"


def main(request: int) -> None:
    """Read what to do from a descriptor and do it; does not return."""
    with os.fdopen(request, "rb") as file:
        order = json.load(file)
    process_calls.die_with_parent(signal.SIGKILL)
    if order["tty"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    try:
        _join_groups_of(order["like"])
        os.chdir(order["working_dir"])
        _become(order["user"])
    except (OSError, KeyError) as error:
        _give_up(f"{error}", 126)
    _run(order)


def _join_groups_of(pid: int) -> None:
    """Be limited, frozen and killed with the workload."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in lines:
        if _OURS not in path:
            continue
        names = controllers.split(",") if controllers else [""]
        for name in names:
            place = os.path.normpath(f"{_CGROUPS}/{name}{path}/cgroup.procs")
            if os.path.exists(place):
                with open(place, "w", encoding="ascii") as file:
                    file.write("0")
                break


def _become(user: str) -> None:
    if not user:
        return
    entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    if entry.pw_uid != os.geteuid():
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


def _run(order: Any) -> NoReturn:
    program, (name, mark) = order["argv"][0], order["mark"]
    env = {**order["env"], name: f"{mark}/{os.getpid()}"}
    try:
        os.execvpe(program, order["argv"], env)
    except FileNotFoundError:
        _give_up(f"{program}: not found", 127)
    except OSError as error:
        _give_up(f"{program}: {error.strerror}", 126)


def _give_up(why: str, code: int) -> NoReturn:
    print(why, file=sys.stderr, flush=True)
    os._exit(code)
