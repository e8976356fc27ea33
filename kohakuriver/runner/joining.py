"""Joins this machine to a host by a join token: both sides make the same key of it, and the token never travels."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass

from kohakuriver.model import join_api
from kohakuriver.model.errors import NodeUnreachable, NotAllowed, NotFound, NotLoggedIn
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import membership
from kohakuriver.runner.membership import Membership
from kohakuriver.runner.node_name import hostname_of, url_of
from kohakuriver.wire import errand, joining
from kohakuriver.wire.call import NotDelivered
from kohakuriver.wire.errand import At
from kohakuriver.wire.joining import Agreed, Token
from kohakuriver.wire.pinning import fetch_ca
from kohakuriver.wire.sign import Signer, SteadyTime

NONCE_BYTES = 32
TRIES, PAUSE_SECONDS = 4, 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host is."""

    host: str
    port: int

    def url(self, tls: bool) -> str:
        """The root of its API."""
        return url_of(self.host, self.port, "https" if tls else "http")


async def join(settings: RunnerSettings, place: Place, token: Token) -> Membership:
    """What the two sides agreed on, which is not kept yet; raises NotAllowed, Conflict or Unavailable."""
    hostname, nonce = hostname_of(settings), secrets.token_hex(NONCE_BYTES)
    asked = join_api.Join(hostname=hostname, nonce=nonce, proof=_proof(settings, hostname, nonce))
    ca_pem = ""
    if token.ca_fingerprint:
        ca_pem = await asyncio.to_thread(fetch_ca, place.host, place.port, token.ca_fingerprint)
    joined = await _agree(At(place.url(bool(ca_pem)), ca_pem), token, asked)
    key = joining.runner_key(token.secret, Agreed(joined.cluster_id, hostname, nonce, joined.nonce))
    return Membership(
        cluster_id=joined.cluster_id,
        hostname=hostname,
        host=place.host,
        port=place.port,
        key=key.hex(),
        ca_pem=ca_pem,
    )


def _proof(settings: RunnerSettings, hostname: str, nonce: str) -> str:
    """Shows the host that this is the machine which it knows by that name; empty when there is nothing to show."""
    with suppress(NotFound, NotAllowed):
        return joining.possession(membership.belonging(settings).key, hostname, nonce)
    return ""


async def _agree(at: At, token: Token, asked: join_api.Join) -> join_api.Joined:
    """Ask until there is an answer: the same nonce gets the same answer, however often the token was good for."""
    signer = Signer(token.signs_as, token.secret, SteadyTime())
    for left in reversed(range(TRIES)):
        try:
            return await errand.call(at, signer, join_api.NODE_JOIN, asked)
        except NotDelivered:
            raise
        except NotLoggedIn:
            raise NotAllowed(f"{at.url} does not know this join token: it is another cluster's, or mistyped") from None
        except NodeUnreachable:
            if not left:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")
