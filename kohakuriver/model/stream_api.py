"""The sockets by which one is inside a workload: what the host's and what a runner's take."""

from dataclasses import dataclass, replace

from kohakuriver.model import fields as f
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.files import WatchFiles
from kohakuriver.model.files_api import at_environment
from kohakuriver.model.route import Channel, channels_of

SIZE = Bounds(least=1, most=10_000)
PORT = Bounds(least=1, most=65535)
SHELL = Bounds(length=200, pattern=r"[\w./+-]*")
SESSION = Bounds(length=64, pattern="[0-9a-f]*")
WORD = Bounds(length=100_000, count=10_000)
TERM = r"[\w.+-]{0,64}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTerminal:
    """What a browser asks for: a new shell, its session again, or to look on; programs say it in their first frame."""

    task_id: Snowflake = declare("The workload.")
    rows: int = declare("Lines of the terminal.", default=24, bounds=SIZE)
    columns: int = declare("Columns of the terminal.", default=80, bounds=SIZE)
    shell: str = declare("Which shell; empty: the first of bash, ash, sh.", default="", bounds=SHELL)
    session: str = declare("A session to take up again.", default="", bounds=SESSION)
    watch: bool = declare("Only look on: at that session, or at the latest.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTerminal:
    """What a program asks for, in its first frame; `received` counts bytes of output that it has."""

    argv: list[str] = declare("The program and its arguments; empty: a shell.", default=[], bounds=WORD)
    tty: bool = declare("Whether it gets a terminal.", default=True)
    rows: int = declare("Lines of the terminal.", default=24, bounds=SIZE)
    columns: int = declare("Columns of the terminal.", default=80, bounds=SIZE)
    term: str = declare("Kind of the terminal.", default="", bounds=Bounds(length=64, pattern=TERM))
    shell: str = declare("Which shell; empty: the first of bash, ash, sh.", default="", bounds=SHELL)
    session: str = declare("A session to take up again.", default="", bounds=SESSION)
    received: int = declare("Output that need not be sent again.", default=0, bounds=Bounds(least=0))
    watch: bool = declare("Only look on: at that session, or at the latest.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalOpened:
    """The first frame that a program gets: its output goes on at `at`, and so much of its input has been `taken`."""

    session: str
    at: int
    taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenForward:
    """Which port of a workload; it is reached over the workload's loopback."""

    task_id: Snowflake = declare("The workload.")
    port: int = declare("The port inside.", bounds=PORT)
    proto: str = declare("tcp or udp.", default="tcp", bounds=Bounds(pattern="tcp|udp"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerTerminal:
    """A terminal in one attempt, for a person."""

    task_id: Snowflake
    attempt: int
    user: str = declare("Whose it is.", bounds=Bounds(length=64, pattern=f.NO_CONTROL))
    rows: int = declare("Lines of the terminal.", default=24, bounds=SIZE)
    columns: int = declare("Columns of the terminal.", default=80, bounds=SIZE)
    shell: str = declare("Which shell.", default="", bounds=SHELL)
    session: str = declare("A session to take up again.", default="", bounds=SESSION)
    watch: bool = declare("Only look on.", default=False)
    may_watch: bool = declare("Whether he may look on at what others do.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerForward:
    """A port of one attempt."""

    task_id: Snowflake
    attempt: int
    port: int = declare("The port inside.", bounds=PORT)
    proto: str = declare("tcp or udp.", default="tcp", bounds=Bounds(pattern="tcp|udp"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTunnel:
    """Which container dials."""

    container: str = declare("Its name.", bounds=Bounds(length=64, pattern=r"kohakuriver-(task|vps)-[0-9]{1,19}"))


TERMINAL = Channel(
    "terminal",
    "/ws/task/{task_id}/terminal",
    OpenTerminal,
    Role.USER,
    "A shell or a program in a workload.",
    Ownership.WORKLOAD_USE,
)
FORWARD = Channel(
    "forward",
    "/ws/forward/{task_id}/{port}",
    OpenForward,
    Role.USER,
    "Connections to a port of a workload.",
    Ownership.WORKLOAD_USE,
)
WATCH = Channel(
    "fs.watch",
    "/ws/fs/{task_id}/watch",
    WatchFiles,
    Role.USER,
    "What changes below a path of a workload, as JSON.",
    Ownership.WORKLOAD_USE,
)
WATCH_AT_ENVIRONMENT = at_environment(WATCH)
CHANNELS = channels_of(globals())

TERMINAL_AT_RUNNER = Channel(
    "terminal",
    "/ws/task/{task_id}/terminal",
    RunnerTerminal,
    Role.NODE,
    "A shell or a program in an attempt.",
    Ownership.HOST,
)
FORWARD_AT_RUNNER = Channel(
    "forward",
    "/ws/forward/{task_id}/{port}",
    RunnerForward,
    Role.NODE,
    "Connections to a port of an attempt.",
    Ownership.HOST,
)
WATCH_AT_RUNNER = replace(WATCH, needs=Role.NODE, owns=Ownership.HOST)
TUNNEL_AT_RUNNER = Channel(
    "tunnel",
    "/ws/tunnel/{container}",
    OpenTunnel,
    Role.ANONY,
    "A container dials, so that its ports are reached where its network cannot be entered (TUNNEL_ENABLED).",
    Ownership.CONTAINER,
)
AT_RUNNER = (TERMINAL_AT_RUNNER, FORWARD_AT_RUNNER, WATCH_AT_RUNNER, TUNNEL_AT_RUNNER)
