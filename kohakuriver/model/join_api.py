"""The part of the host's table by which machines come into the cluster, and out of it again."""

from dataclasses import dataclass

from kohakuriver.model import fields as f
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.report import NAME
from kohakuriver.model.route import PlainText, Route, table_of
from kohakuriver.model.runner_api import Nothing

ONE_DAY_SECONDS = 86400
NONCE = Bounds(length=64, pattern=r"[0-9a-f]{64}")
PROOF = Bounds(length=64, pattern=r"([0-9a-f]{64})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A machine comes in, signed with its token; `proof` shows that it has the key which its name has now."""

    hostname: str = declare("The node's name.", bounds=NAME)
    nonce: str = declare("Drawn by the runner for this.", bounds=NONCE)
    proof: str = declare("HMAC of the nonce under the key it had before.", default="", bounds=PROOF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What the runner needs to make its own key out of the token."""

    cluster_id: str
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJoinToken:
    """A new join token."""

    uses: int = declare("How many machines may join with it.", default=1, bounds=Bounds(least=1, most=10_000))
    ttl_seconds: int = declare(
        "How long it is good for.", default=ONE_DAY_SECONDS, bounds=Bounds(least=1, most=365 * ONE_DAY_SECONDS)
    )
    node: str | None = declare(
        "Only for the node of this name, even while one of that name is alive.", default=None, bounds=NAME
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A join token without its secret; times are UTC RFC 3339."""

    join_id: Snowflake
    node: str | None
    uses: int
    uses_left: int
    created_by: str
    created_at: str
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedJoinToken:
    """The token, shown this once."""

    token: str
    made: JoinToken


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinId:
    join_id: Snowflake = declare("The join token.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeNode:
    hostname: str = declare("The node.", bounds=NAME)
    reason: str = declare("Why, for others to read.", default="", bounds=Bounds(length=500, pattern=f.NO_CONTROL))


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateKey:
    hostname: str = declare("The node.", bounds=NAME)


R, O, A = Role, Ownership, "/api/join-tokens"
NODE_JOIN = Route("node.join", "POST", "/api/nodes/join", Join, Joined, R.NODE, "A machine joins by a token.", O.JOIN)
NODE_REVOKE = Route(
    "node.revoke",
    "POST",
    "/api/nodes/{hostname}/revoke",
    RevokeNode,
    Nothing,
    R.ADMIN,
    "Believe its runner nothing any more, until it joins again.",
)
NODE_ROTATE_KEY = Route(
    "node.rotate-key",
    "POST",
    "/api/nodes/{hostname}/rotate-key",
    RotateKey,
    Nothing,
    R.ADMIN,
    "Give its runner another key; the one before is void.",
)
JOIN_TOKEN_LIST = Route("node.token.list", "GET", A, Nothing, list[JoinToken], R.ADMIN, "Open join tokens.")
JOIN_TOKEN_CREATE = Route(
    "node.token.create", "POST", A, CreateJoinToken, CreatedJoinToken, R.ADMIN, "A token by which machines join."
)
JOIN_TOKEN_REVOKE = Route(
    "node.token.revoke", "DELETE", A + "/{join_id}", JoinId, Nothing, R.ADMIN, "Take a join token back."
)

TLS_CA = Route(
    "tls.ca", "GET", "/api/tls/ca", Nothing, PlainText, R.ANONY, "The CA by which this host is known (PEM), if any."
)

ROUTES = table_of(globals())
