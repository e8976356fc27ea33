"""The part of the host's table that is about SSH: keys of accounts, and what the SSH port shows of itself."""

from dataclasses import dataclass

from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.auth_api import LABEL, WhoseLogins
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.public_key import MOST_CHARACTERS, check_public_key
from kohakuriver.model.route import Route, table_of
from kohakuriver.model.runner_api import Nothing

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
    authority: HostKey | None = None


R, O, A = Role, Ownership, "/api/auth"
KEY_LIST = Route("auth.key.list", "GET", A + "/keys", WhoseLogins, list[KeyInfo], R.VIEWER, "SSH keys.")
KEY_ADD = Route("auth.key.add", "POST", A + "/keys", AddKey, KeyInfo, R.VIEWER, "Let a key log in over SSH.")
KEY_DELETE = Route(
    "auth.key.delete", "DELETE", A + "/keys/{key_id}", KeyId, Nothing, R.VIEWER, "Take a key away.", O.KEY
)

ROUTES = table_of(globals())
