"""Secrets that the host gives out: `krt_ID_SECRET`, readable enough to be recognized, and kept only as a digest.

The prefix says what it is (`krt` API token, `krs` browser session, `kri` invitation, `krw` ticket for a socket), the id
which one, and the rest is 32 random bytes in base64url.
"""

import hashlib
import hmac
import secrets
from enum import StrEnum
from typing import NamedTuple

from kohakuriver.model.codec import MAX_SNOWFLAKE

SECRET_BYTES = 32
MAX_CHARACTERS = 100
NO_DIGEST = bytes(64)


class Kind(StrEnum):
    """What a secret is good for; the value is its prefix."""

    TOKEN = "krt"
    SESSION = "krs"
    INVITATION = "kri"
    TICKET = "krw"


class Named(NamedTuple):
    """What a secret says of itself before anybody has checked it."""

    kind: str
    number: int


def make(kind: Kind, number: int) -> str:
    """A new secret."""
    return f"{kind}_{number}_{secrets.token_urlsafe(SECRET_BYTES)}"


def read(text: str) -> Named | None:
    """What it claims to be; None when it is none of ours."""
    kind, _, rest = text.partition("_")
    number, _, secret = rest.partition("_")
    if len(text) > MAX_CHARACTERS or not secret or not (number.isascii() and number.isdigit()):
        return None
    return Named(kind, int(number)) if int(number) <= MAX_SNOWFLAKE else None


def digest_of(text: str) -> bytes:
    """The digest under which a secret is kept (SHA3-512; 256 random bits need no salt and no slow hash)."""
    return hashlib.sha3_512(text.encode("utf-8", "surrogateescape")).digest()


def matches(text: str, digest: bytes | None) -> bool:
    """Whether a secret has this digest, in a time that tells nothing; never when there is no digest."""
    return hmac.compare_digest(digest_of(text), digest or NO_DIGEST) and digest is not None


def csrf_of(digest: bytes) -> str:
    """What our own page sends with everything that a browser session changes; it follows from the session's digest."""
    return hashlib.sha3_256(b"csrf\0" + digest).hexdigest()
