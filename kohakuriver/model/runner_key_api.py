"""The runner's table, the part by which the key between it and its host becomes another one."""

from dataclasses import dataclass

from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.route import Route, table_of
from kohakuriver.model.runner_api import Nothing

HEX = Bounds(length=64, pattern=r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """Somebody's half of an exchange."""

    public: str = declare("The public half (X25519, hex).", bounds=HEX)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeKey:
    proof: str = declare("HMAC by which the host shows that it has the new key, and keeps it.", bounds=HEX)


N, H = Role.NODE, Ownership.HOST
OFFER_KEY = Route("key.offer", "POST", "/api/key/offer", Half, Half, N, "Agree on a new key, beside the one in use.", H)
TAKE_KEY = Route("key.take", "POST", "/api/key/take", TakeKey, Nothing, N, "Use the new key, and no other.", H)

ROUTES = table_of(globals())
