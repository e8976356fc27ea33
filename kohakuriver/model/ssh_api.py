"""What is about SSH: keys of accounts, what the SSH port shows of itself, and how it reaches into workloads."""

from dataclasses import dataclass

from kohakuriver.model import fields as f
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.auth_api import LABEL, WhoseLogins
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.public_key import MOST_CHARACTERS, check_public_key
from kohakuriver.model.route import Channel, Route, channels_of, table_of
from kohakuriver.model.runner_api import Nothing

LOGIN = Bounds(length=64, pattern=r"[A-Za-z0-9_.@$-]*")
SIZE = Bounds(least=0, most=10_000)
PUBLIC_KEY = Bounds(length=MOST_CHARACTERS, check=check_public_key, shape=r"\s*(ssh-|sk-).*")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A public key of an account; times are UTC RFC 3339."""

    key_id: Snowflake
    owner: str
    name: str
    role: Role
    algorithm: str
    fingerprint: str
    created_at: str
    last_used_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddKey:
    """A public key by which the caller logs in over SSH."""

    public_key: str = declare("The line in the .pub file.", bounds=PUBLIC_KEY)
    name: str | None = declare("What it is called; the key's comment if not given.", default=None, bounds=LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyId:
    key_id: Snowflake = declare("The key.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A key by which the SSH port proves that it is itself."""

    public_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SshPort:
    """Where the SSH port is and what it shows; `port` 0: there is none.

    `authority` signs the keys that workloads without an SSH server of their own show.
    """

    port: int
    host_keys: list[HostKey]
    authority: HostKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTo:
    """An SSH server in a workload: its own if it has one, else the host's, which stands for it."""

    task_id: Snowflake = declare("The workload.")
    shown_as: str = declare(
        "What else the caller calls it: a server that stands for it proves that, too.",
        default="",
        bounds=Bounds(length=255, pattern=r"[A-Za-z0-9._/-]*"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PortInside:
    """A connection from within one attempt to a port there, or beyond."""

    task_id: Snowflake
    attempt: int
    host: str = declare("Name or address; localhost is the workload.", bounds=Bounds(length=255, pattern=f.NO_CONTROL))
    port: int = declare("The port.", bounds=Bounds(least=1, most=65535))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInside:
    """A process in one attempt; the first message says which (`StartProcess`)."""

    task_id: Snowflake
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProcess:
    """A command for the shell, or a shell when there is none; on a terminal when `term` is given."""

    command: str = declare("What the shell is told.", default="", bounds=Bounds(length=500_000))
    user: str = declare("Who; empty: whom the workload runs as.", default="", bounds=LOGIN)
    term: str = declare("Kind of the terminal.", default="", bounds=Bounds(length=100, pattern=f.NO_CONTROL))
    rows: int = declare("Lines of the terminal.", default=0, bounds=SIZE)
    columns: int = declare("Columns of the terminal.", default=0, bounds=SIZE)
    env: dict[str, str] = declare("Variables.", default={}, bounds=Bounds(count=32, length=1000, keys=f.VARIABLE))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesInside:
    """The files of one attempt, spoken with in SFTP version 3."""

    task_id: Snowflake
    attempt: int
    user: str = declare("Who; empty: whom the workload runs as.", default="", bounds=LOGIN)


R, O, A = Role, Ownership, "/api/auth"
KEY_LIST = Route("auth.key.list", "GET", A + "/keys", WhoseLogins, list[KeyInfo], R.VIEWER, "SSH keys.")
KEY_ADD = Route("auth.key.add", "POST", A + "/keys", AddKey, KeyInfo, R.VIEWER, "Let a key log in over SSH.")
KEY_DELETE = Route(
    "auth.key.delete", "DELETE", A + "/keys/{key_id}", KeyId, Nothing, R.VIEWER, "Take a key away.", O.KEY
)

SSH_PORT = Route("ssh", "GET", "/api/ssh", Nothing, SshPort, R.VIEWER, "The SSH port and its host keys.")

ROUTES = table_of(globals())

SSH_TO = Channel("ssh.to", "/ws/ssh/{task_id}", SshTo, R.USER, "The SSH server of a workload.", O.WORKLOAD_USE)
CHANNELS = channels_of(globals())

H = Ownership.HOST
PORT_AT_RUNNER = Channel("ssh.port", "/ws/ssh/{task_id}/port", PortInside, R.NODE, "A connection from within.", H)
PROCESS_AT_RUNNER = Channel("ssh.process", "/ws/ssh/{task_id}/process", ProcessInside, R.NODE, "A process inside.", H)
FILES_AT_RUNNER = Channel("ssh.files", "/ws/ssh/{task_id}/files", FilesInside, R.NODE, "The files inside.", H)
AT_RUNNER = (PORT_AT_RUNNER, PROCESS_AT_RUNNER, FILES_AT_RUNNER)
