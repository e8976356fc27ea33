"""The part of the host's table that is about accounts: logins, tokens, invitations, groups, and the trail."""

from dataclasses import dataclass, field

from kohakuriver.model import fields as f
from kohakuriver.model.access import GROUP_NAME, PERSONS, USER_NAME, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.route import ByteStream, Route, table_of
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.units import unix_seconds

SHORTEST_PASSWORD = 8
LABEL = Bounds(length=100, shortest=1, pattern=f.NO_CONTROL)
NEW_USER = Bounds(length=63, shortest=1, pattern=USER_NAME)
ANY_USER = Bounds(length=100)  # what is not a name belongs to nobody, and that is all there is to say
PASSWORD = Bounds(length=1024)
NEW_PASSWORD = Bounds(length=1024, shortest=SHORTEST_PASSWORD)
GROUP = Bounds(length=63, shortest=1, pattern=GROUP_NAME, count=32)
CODE = Bounds(length=1024)
AMOUNT = Bounds(least=0, most=10**9)


def check_person(role: Role | None) -> None:
    """Raise ValueError when no person can have this role."""
    if role is not None and role not in PERSONS:
        raise ValueError(f"role: no account can be {role.label}; one of {', '.join(p.label for p in PERSONS)} can")


def check_moment(text: str) -> None:
    """Raise ValueError unless it is an RFC 3339 time that says which zone it is in."""
    try:
        unix_seconds(text)
    except ValueError as wrong:
        raise ValueError(f"{wrong} (write 2030-01-31T12:00:00Z)") from None


MOMENT = Bounds(length=40, check=check_moment, form="date-time", shape=r"[1-9].*")
PERSON = Bounds(check=check_person)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthStatus:
    """Whether accounts are on, whether the first admin is still to come, and who is asking."""

    auth_enabled: bool
    needs_first_admin: bool
    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """The caller as the host knows him; `by` is token, session, secret or none.

    `csrf_token` belongs into the header X-CSRF-Token of everything that a browser session changes.
    """

    name: str
    role: Role
    user_id: Snowflake | None = None
    groups: list[str] = field(default_factory=list)
    by: str = "none"
    expires_at: str | None = None
    csrf_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """A name and its password; gives a browser session, or with `token_name` an API token."""

    username: str = declare("Who.", bounds=ANY_USER)
    password: str = declare("The password.", bounds=PASSWORD)
    token_name: str | None = declare("Give an API token of this name, and no session.", default=None, bounds=LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A new account, by an invitation or by the secret for the first admin."""

    username: str = declare("Small letters, digits and _ . @ -", bounds=NEW_USER)
    password: str = declare("At least 8 characters.", bounds=NEW_PASSWORD)
    invitation: str = declare("The invitation, or the secret for the first admin.", bounds=CODE)
    token_name: str | None = declare("Give an API token of this name, and no session.", default=None, bounds=LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """Who is logged in now; the token is shown this once."""

    name: str
    role: Role
    expires_at: str
    token: str | None = None
    token_id: Snowflake | None = None
    csrf_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """A new password for the caller; his other sessions end."""

    old_password: str = declare("The present one.", bounds=PASSWORD)
    new_password: str = declare("At least 8 characters.", bounds=NEW_PASSWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoseLogins:
    user: str | None = declare("Of this person, for admins; else the caller's own.", default=None, bounds=ANY_USER)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """An API token without its secret; times are UTC RFC 3339."""

    token_id: Snowflake
    owner: str
    name: str
    role: Role
    created_at: str
    expires_at: str
    last_used_at: str | None = None
    current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateToken:
    """A new API token of the caller."""

    name: str = declare("What it is for.", bounds=LABEL)
    role: Role | None = declare(
        "What it may do at most; the account's own role if not given.", default=None, bounds=PERSON
    )
    expire_days: int | None = declare("Days it is good for.", default=None, bounds=Bounds(least=1, most=3650))

    def __post_init__(self) -> None:
        check_person(self.role)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedToken:
    """The token, shown this once."""

    token: str
    token_id: Snowflake
    name: str
    role: Role
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenId:
    token_id: Snowflake = declare("The token.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How many were ended."""

    ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A browser session; times are UTC RFC 3339."""

    session_id: Snowflake
    owner: str
    address: str
    created_at: str
    expires_at: str
    last_used_at: str | None = None
    current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionId:
    session_id: Snowflake = declare("The session.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSocket:
    """For which path of a socket the ticket is to be."""

    path: str = declare("The path, without a query.", bounds=Bounds(length=1024, pattern=r"/[\x21-\x7e]*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Good once, for that path, as `?ticket=` of the socket's URL."""

    ticket: str
    expires_in_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A new invitation."""

    role: Role = declare("What the invited will be.", default=Role.USER, bounds=PERSON)
    groups: list[str] = declare("Groups the invited will be in.", default=[], bounds=GROUP)
    uses: int = declare("How many may use it.", default=1, bounds=Bounds(least=1, most=1000))
    expire_hours: int | None = declare("Hours it is good for.", default=None, bounds=Bounds(least=1, most=24 * 365))

    def __post_init__(self) -> None:
        check_person(self.role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation without its code; times are UTC RFC 3339."""

    invitation_id: Snowflake
    role: Role
    groups: list[str]
    uses: int
    uses_left: int
    created_by: str
    created_at: str
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """The invitation with its code, shown this once."""

    code: str
    invitation: Invitation


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationId:
    invitation_id: Snowflake = declare("The invitation.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person's account; times are UTC RFC 3339."""

    user_id: Snowflake
    name: str
    role: Role
    groups: list[str]
    disabled: bool
    created_at: str
    last_login_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeAccount:
    """What is to change of an account; what is not given stays."""

    user_id: Snowflake = declare("The account.")
    role: Role | None = declare("What he is from now on.", default=None, bounds=PERSON)
    disabled: bool | None = declare("Whether he is locked out.", default=None)
    groups: list[str] | None = declare("The groups he is in, all of them.", default=None, bounds=GROUP)
    password: str | None = declare("A new password; his sessions end.", default=None, bounds=NEW_PASSWORD)

    def __post_init__(self) -> None:
        check_person(self.role)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserId:
    user_id: Snowflake = declare("The account.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What all members of a group may have at once, together; nothing given: no limit."""

    max_queued: int | None = declare("Tasks that wait.", default=None, bounds=AMOUNT)
    max_running: int | None = declare("Tasks on nodes.", default=None, bounds=AMOUNT)
    max_vps: int | None = declare("VPS that are not stopped.", default=None, bounds=AMOUNT)
    max_cores: int | None = declare("Cores of tasks on nodes.", default=None, bounds=AMOUNT)
    max_gpus: int | None = declare("GPUs of tasks on nodes.", default=None, bounds=AMOUNT)
    max_memory_bytes: int | None = declare(
        "Memory of tasks on nodes.", default=None, bounds=Bounds(least=0, most=2**53)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGroup(Quota):
    """A group as it is to be; it is made when it is not there, and a limit not given is taken away."""

    group: str = declare("Its name.", bounds=GROUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupName:
    group: str = declare("The group.", bounds=GROUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Quota):
    """A group, its limits, and who is in it."""

    name: str
    members: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTrail:
    """Which entries of the trail, newest first; `before` is the last id of the page before."""

    user: str | None = declare("Only what this person did.", default=None, bounds=ANY_USER)
    object: str | None = declare("Only what was done to this (task:ID, user:NAME …).", default=None, bounds=LABEL)
    since: str | None = declare("Only from this time on (RFC 3339).", default=None, bounds=MOMENT)
    before: Snowflake | None = declare("Only older than this id.", default=None)
    limit: int = declare("At most so many.", default=100, bounds=Bounds(least=1, most=1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTrail:
    """Which entries of the trail, oldest first, all of them."""

    user: str | None = declare("Only what this person did.", default=None, bounds=ANY_USER)
    object: str | None = declare("Only what was done to this (task:ID, user:NAME …).", default=None, bounds=LABEL)
    since: str | None = declare("Only from this time on (RFC 3339).", default=None, bounds=MOMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to what, when (UTC RFC 3339), from which address, with what result."""

    entry_id: Snowflake
    at: str
    user: str
    action: str
    object: str
    address: str
    result: str
    detail: str


R, O, A = Role, Ownership, "/api/auth"
STATUS = Route("auth.status", "GET", A + "/status", Nothing, AuthStatus, R.ANONY, "Whether accounts are on, who I am.")
ME = Route("auth.me", "GET", A + "/me", Nothing, Me, R.VIEWER, "The caller's account and login.")
LOGIN = Route("auth.login", "POST", A + "/login", LogIn, LoggedIn, R.ANONY, "Begin a session, or get a token.")
LOGOUT = Route("auth.logout", "POST", A + "/logout", Nothing, Nothing, R.VIEWER, "End this session or token.")
REGISTER = Route("auth.register", "POST", A + "/register", Register, LoggedIn, R.ANONY, "Make an account.")
PASSWORD_CHANGE = Route(
    "auth.password", "POST", A + "/password", ChangePassword, Nothing, R.VIEWER, "Change one's own password."
)
TICKET = Route("auth.ticket", "POST", A + "/tickets", OpenSocket, Ticket, R.VIEWER, "A ticket for one socket.")

TOKEN_LIST = Route("auth.token.list", "GET", A + "/tokens", WhoseLogins, list[TokenInfo], R.VIEWER, "API tokens.")
TOKEN_CREATE = Route(
    "auth.token.create", "POST", A + "/tokens", CreateToken, CreatedToken, R.VIEWER, "A new API token."
)
TOKEN_REVOKE = Route(
    "auth.token.revoke", "DELETE", A + "/tokens/{token_id}", TokenId, Nothing, R.VIEWER, "End a token.", O.TOKEN
)
TOKEN_REVOKE_ALL = Route(
    "auth.token.revoke-all", "DELETE", A + "/tokens", WhoseLogins, Ended, R.VIEWER, "End all API tokens of a person."
)
SESSION_LIST = Route(
    "auth.session.list", "GET", A + "/sessions", WhoseLogins, list[SessionInfo], R.VIEWER, "Browser sessions."
)
SESSION_END = Route(
    "auth.session.end", "DELETE", A + "/sessions/{session_id}", SessionId, Nothing, R.VIEWER, "End one.", O.SESSION
)

INVITE_LIST = Route(
    "auth.invite.list", "GET", A + "/invitations", Nothing, list[Invitation], R.OPERATOR, "Open invitations."
)
INVITE_CREATE = Route("auth.invite.create", "POST", A + "/invitations", Invite, Invited, R.OPERATOR, "Invite somebody.")
INVITE_REVOKE = Route(
    "auth.invite.revoke",
    "DELETE",
    A + "/invitations/{invitation_id}",
    InvitationId,
    Nothing,
    R.OPERATOR,
    "Take an invitation back.",
)

USER_LIST = Route("auth.user.list", "GET", A + "/users", Nothing, list[Account], R.ADMIN, "All accounts.")
USER_SET = Route(
    "auth.user.set", "PATCH", A + "/users/{user_id}", ChangeAccount, Account, R.ADMIN, "Change an account."
)
USER_DELETE = Route(
    "auth.user.delete", "DELETE", A + "/users/{user_id}", UserId, Nothing, R.ADMIN, "Delete an account for good."
)

GROUP_LIST = Route("auth.group.list", "GET", A + "/groups", Nothing, list[Group], R.VIEWER, "Groups and their limits.")
GROUP_SET = Route("auth.group.set", "PUT", A + "/groups/{group}", SetGroup, Group, R.ADMIN, "Make or change a group.")
GROUP_DELETE = Route(
    "auth.group.delete", "DELETE", A + "/groups/{group}", GroupName, Nothing, R.ADMIN, "Delete a group."
)

TRAIL = Route("audit", "GET", "/api/audit", ReadTrail, list[AuditEntry], R.ADMIN, "Who did what, newest first.")
TRAIL_EXPORT = Route(
    "audit.export",
    "GET",
    "/api/audit/export",
    ExportTrail,
    ByteStream,
    R.ADMIN,
    "The trail, one JSON object a line.",
    media="application/x-ndjson",
)

ROUTES = table_of(globals())
