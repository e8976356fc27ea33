"""Tokens by which a reserved address is claimed: what they say, signed by the host."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Claim:
    """What a token says: the address, on which runner, and until when (UTC unix seconds)."""

    ip: str
    runner: str
    exp: int


def make_token(claim: Claim, key: bytes) -> str:
    """Base64url of `payload.signature`: compact JSON, and its HMAC-SHA256 in hex."""
    payload = codec.encode_text(claim).encode()
    return base64.urlsafe_b64encode(payload + b"." + _sign(payload, key)).decode()


def read_token(token: str, key: bytes) -> Claim:
    """What a token of ours says; raises BadRequest for any other. Whether it is still good is for the store to say."""
    try:
        payload, _, signature = base64.b64decode(token.encode(), altchars=b"-_", validate=True).rpartition(b".")
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequest("ip_reservation_token: this is no reservation token") from None
    if not hmac.compare_digest(_sign(payload, key), signature):
        raise BadRequest("ip_reservation_token: this host did not make this reservation token")
    try:
        return codec.decode(Claim, codec.loads(payload))
    except BadRequest:
        raise BadRequest("ip_reservation_token: this reservation token says nothing") from None


def _sign(payload: bytes, key: bytes) -> bytes:
    return hmac.new(key, payload, hashlib.sha256).hexdigest().encode()
