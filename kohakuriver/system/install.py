"""Installing and removing the host or the runner as a systemd service."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.model.errors import BadRequest, NotAllowed, Unavailable
from kohakuriver.system.install_actions import Hands
from kohakuriver.system.install_plan import (
    Action,
    Command,
    Say,
    Target,
    other_programs,
    plan_install,
    plan_uninstall,
    unit_path,
)
from kohakuriver.system.service_units import PROGRAMS

_SYSTEMD_RUNS = Path("/run/systemd/system")  # the sign that sd_booted(3) looks for

PrintLine = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOrder:
    """What is asked: the service of `host` or `runner`, from this .pyz, into the system under `root`."""

    program: str
    pyz_path: Path
    example_config_text: str
    root: Path = Path("/")
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UninstallOrder:
    """What is asked: to take the service of `host` or `runner` away; with `purge` also settings, data and user."""

    program: str
    root: Path = Path("/")
    dry_run: bool = False
    purge: bool = False


def install(order: InstallOrder, print_line: PrintLine) -> int:
    """Place file, unit, user, directories and example configuration, one printed line each; returns the exit code 0.

    What is true already is left alone and said to be so, hence it may be repeated; existing settings are never
    touched. A dry run prints the same lines and changes nothing. Raises BadRequest for an unknown program or a file
    that is not there, NotAllowed without root's rights, Conflict when something foreign is in the way (before
    anything was changed), Unavailable when an action fails.
    """
    _check(order)
    if not order.pyz_path.is_file():
        raise BadRequest(f"{order.pyz_path} is no file: only the built kohakuriver.pyz can install itself")
    target = look_at(order.root, order.program)
    apply(plan_install(order.program, order.pyz_path, order.example_config_text, target), order, print_line)
    return 0


def uninstall(order: UninstallOrder, print_line: PrintLine) -> int:
    """Take away what `install` placed, one printed line each; returns the exit code 0 and raises as `install` does."""
    _check(order)
    target = look_at(order.root, order.program)
    apply(plan_uninstall(order.program, target, order.purge), order, print_line)
    return 0


def look_at(root: Path, program: str) -> Target:
    """The facts about the system under `root` on which a plan for `program` depends."""
    present = (other for other in other_programs(program) if Hands(root).place(unit_path(other)).exists())
    return Target(
        systemd_runs=root == Path("/") and _SYSTEMD_RUNS.is_dir(),
        has_users=(root / "etc/passwd").is_file(),
        other_programs=tuple(present),
    )


def apply(plan: list[Action], order: InstallOrder | UninstallOrder, print_line: PrintLine) -> None:
    """Make a plan true, or with `dry_run` only say what would be done; looks at everything before it does anything."""
    hands = Hands(order.root)
    for action, done in list(_look(plan, hands)):
        print_line(_line(action, done))
        if not done and not order.dry_run:
            _do(hands, action)


def _check(order: InstallOrder | UninstallOrder) -> None:
    if order.program not in PROGRAMS:
        raise BadRequest(f"program must be one of {', '.join(PROGRAMS)}, not {order.program!r}")
    if not order.root.is_absolute():
        raise BadRequest(f"root must be an absolute path, not {order.root}")
    if order.root == Path("/") and os.geteuid() != 0 and not order.dry_run:
        raise NotAllowed("services are root's matter: use sudo (or --dry-run to see what would be done)")


def _look(plan: list[Action], hands: Hands) -> Iterator[tuple[Action, bool]]:
    changed = False
    for action in plan:
        done = hands.is_done(action, changed)
        changed = changed or not (done or isinstance(action, Command))
        yield action, done


def _line(action: Action, done: bool) -> str:
    if isinstance(action, Say):
        return str(action)
    return f"nothing to do: {action}" if done else str(action)


def _do(hands: Hands, action: Action) -> None:
    try:
        hands.do(action)
    except OSError as error:
        raise Unavailable(f"could not do this: {action}: {error}") from error
