"""What installing or removing a service comes to: a list of actions, decided without touching anything.

Paths in a plan are absolute as the installed system sees them; whoever acts on it puts its root before them.
"""

from dataclasses import dataclass
from pathlib import Path

from kohakuriver.system.service_units import PROGRAMS, unit_name, unit_text

USER = "kohakuriver"
SUPERUSER = "root"
PYZ = "/usr/local/bin/kohakuriver.pyz"
COMMAND = "/usr/local/bin/kohakuriver"
CONFIG_DIR = "/etc/kohakuriver"
STATE_DIR = "/var/lib/kohakuriver"
CACHE_DIR = "/var/cache/kohakuriver"
UNIT_DIR = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a file is, by name."""

    user: str = SUPERUSER
    group: str = SUPERUSER


@dataclass(frozen=True, slots=True)
class MakeUser:
    """A system user without a login, with a group of its own name."""

    name: str
    home: str

    def __str__(self) -> str:
        return f"user {self.name}"


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory with this owner and mode."""

    path: str
    owner: Owner
    mode: int

    def __str__(self) -> str:
        return f"directory {self.path} ({self.owner.user}, {self.mode:04o})"


@dataclass(frozen=True, slots=True)
class CopyFile:
    """A file of root's with the content of `source`."""

    path: str
    source: Path
    mode: int

    def __str__(self) -> str:
        return f"file {self.path} ({SUPERUSER}, {self.mode:04o}) from {self.source}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A file with this text; an older text is replaced, unless it is `precious`."""

    path: str
    text: str
    owner: Owner
    mode: int
    precious: bool = False

    def __str__(self) -> str:
        return f"file {self.path} ({self.owner.user}:{self.owner.group}, {self.mode:04o})"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    path: str
    target: str

    def __str__(self) -> str:
        return f"link {self.path} -> {self.target}"


@dataclass(frozen=True, slots=True)
class Remove:
    """No such file or link any more."""

    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """No such directory any more, nor anything in it; with `only_if_empty` it stays while it holds something."""

    path: str
    only_if_empty: bool = False

    def __str__(self) -> str:
        return f"remove {self.path} {'if it is empty' if self.only_if_empty else 'and all in it'}"


@dataclass(frozen=True, slots=True)
class RemoveUser:
    """No such user any more."""

    name: str

    def __str__(self) -> str:
        return f"remove user {self.name}"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run; with `after_change` only when an action before it changed something.

    With `while_exists` it is only run while that path is there.
    """

    words: tuple[str, ...]
    after_change: bool = False
    while_exists: str = ""

    def __str__(self) -> str:
        return f"run {' '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class Say:
    """Something the person must know or do."""

    text: str

    def __str__(self) -> str:
        return self.text


Action = MakeUser | MakeDirectory | CopyFile | WriteFile | Link | Remove | RemoveTree | RemoveUser | Command | Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The system that is installed on: whether systemd runs there now, has users, and has which other services."""

    systemd_runs: bool
    has_users: bool = True
    other_programs: tuple[str, ...] = ()


def config_path(program: str) -> str:
    """Where the service of `host` or `runner` reads its settings."""
    return f"{CONFIG_DIR}/{program}_config.py"


def unit_path(program: str) -> str:
    """Where its unit lies."""
    return f"{UNIT_DIR}/{unit_name(program)}"


def plan_install(program: str, pyz: Path, example_config_text: str, target: Target) -> list[Action]:
    """Everything that must be true for the service of `host` or `runner` to run on `target`, in order."""
    owner = Owner(USER, USER) if program == "host" and target.has_users else Owner()
    config_mode = 0o640 if program == "host" else 0o600
    return [
        *_plan_user(program, target),
        CopyFile(PYZ, pyz, 0o755),
        Link(COMMAND, Path(PYZ).name),
        MakeDirectory(CONFIG_DIR, Owner(), 0o755),
        WriteFile(config_path(program), example_config_text, Owner(group=owner.group), config_mode, precious=True),
        MakeDirectory(STATE_DIR, Owner(), 0o755),
        MakeDirectory(f"{STATE_DIR}/{program}", owner, 0o700),
        MakeDirectory(CACHE_DIR, Owner(), 0o755),
        MakeDirectory(f"{CACHE_DIR}/{program}", owner, 0o700),
        WriteFile(unit_path(program), unit_text(program), Owner(), 0o644),
        *_plan_start(program, target),
    ]


def plan_uninstall(program: str, target: Target, purge: bool) -> list[Action]:
    """What takes the service of `host` or `runner` away again; settings and data go only with `purge`."""
    unit = unit_path(program)
    actions: list[Action] = []
    if target.systemd_runs:
        actions.append(Command(("systemctl", "disable", "--now", unit_name(program)), while_exists=unit))
    actions.append(Remove(unit))
    if target.systemd_runs:
        actions.append(Command(("systemctl", "daemon-reload"), after_change=True))
    if target.other_programs:
        actions.append(Say(f"kept for {' and '.join(target.other_programs)}: {PYZ} {COMMAND}"))
    else:
        actions += [Remove(COMMAND), Remove(PYZ)]
    actions.append(RemoveTree(f"{CACHE_DIR}/{program}"))
    actions += _plan_purge(program, target) if purge else [Say(_kept(program))]
    actions += [RemoveTree(path, only_if_empty=True) for path in (CONFIG_DIR, STATE_DIR, CACHE_DIR)]
    if program == "runner":
        actions.append(Say("workloads that run on this machine were left alone"))
    return actions


def other_programs(program: str) -> tuple[str, ...]:
    """The services that may share the machine, and then the file, with `program`."""
    return tuple(other for other in PROGRAMS if other != program)


def _plan_user(program: str, target: Target) -> list[Action]:
    if program != "host":
        return []
    if not target.has_users:
        return [Say(f"no /etc/passwd there, hence no user {USER}: install again before the first start")]
    return [MakeUser(USER, f"{STATE_DIR}/{program}")]


def _plan_start(program: str, target: Target) -> list[Action]:
    unit = unit_name(program)
    if not target.systemd_runs:
        return [Say(f"systemd does not run there now; when it does, type: systemctl enable --now {unit}")]
    return [
        Command(("systemctl", "daemon-reload")),
        Command(("systemctl", "enable", unit)),
        Command(("systemctl", "try-restart", unit), after_change=True),
        Say(f"next: look through {config_path(program)}, then type: systemctl restart {unit}"),
    ]


def _plan_purge(program: str, target: Target) -> list[Action]:
    actions: list[Action] = [
        Remove(config_path(program)),
        RemoveTree(f"{UNIT_DIR}/{unit_name(program)}.d"),
        RemoveTree(f"{STATE_DIR}/{program}"),
    ]
    if program == "host" and target.has_users:
        actions.append(RemoveUser(USER))
    return actions


def _kept(program: str) -> str:
    user = f", user {USER}" if program == "host" else ""
    return f"kept: {config_path(program)}, {STATE_DIR}/{program}{user} (--purge takes them away too)"
