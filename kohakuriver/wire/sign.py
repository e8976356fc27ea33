"""Signed calls between host and runner: HMAC-SHA256 over the whole request, refused when stale or replayed.

Header `X-Kohakuriver-Auth: v1;NAME;AUDIENCE;UNIX_MS;NONCE;MAC`. MAC covers version, name, audience, method, path, query,
SHA-256 of the body, time and nonce. AUDIENCE is the life (random id) of the program called, so that nothing recorded
before its restart is good after it. A caller that does not know it yet, or whose clock is off, is told both in a
signed refusal and asks again. Answers carry `X-Kohakuriver-Answer`: MAC over nonce, status and SHA-256 of the body.

Both sides reckon time from a wall clock read once plus the monotonic clock, so a stepped clock changes nothing.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kohakuriver.model.errors import NotLoggedIn, StaleSignature, TooMany

REQUEST_HEADER, ANSWER_HEADER = "X-Kohakuriver-Auth", "X-Kohakuriver-Answer"
WINDOW_SECONDS = 60.0
MAX_NONCES = 500_000
VERSION = "v1"
FindKey = Callable[[str], bytes | None]
STREAM = b"stream"  # stands for the body of an answer that is streamed


class SteadyTime:
    """UTC unix seconds that nobody can step: the wall clock read once, the monotonic clock since."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._start + time.monotonic()


@dataclass(frozen=True, slots=True)
class Request:
    """What a signature covers; `path` and `query` exactly as they travel."""

    method: str
    path: str
    query: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified request: who signed it, with which nonce and key (to sign the answer)."""

    name: str
    nonce: str
    key: bytes


class Signer:
    """Signs calls to one peer and learns that peer's life and clock from its refusals."""

    def __init__(self, name: str, key: bytes, now: Callable[[], float]) -> None:
        self._name, self._key, self._now = name, key, now
        self._former = key
        self._audience, self._offset_seconds = "", 0.0

    def sign(self, request: Request) -> tuple[dict[str, str], str]:
        """The header to send, and the nonce by which the answer is checked."""
        at_ms = str(int((self._now() + self._offset_seconds) * 1000))
        nonce = secrets.token_hex(12)
        parts = (self._name, self._audience, at_ms, nonce)
        return {REQUEST_HEADER: ";".join((VERSION, *parts, _mac(self._key, request, parts)))}, nonce

    def use(self, key: bytes) -> None:
        """Sign with another key from now on."""
        self._former, self._key = self._key, key

    def trusts(self, headers: Mapping[str, str], nonce: str, status: int, body: bytes) -> bool:
        """Whether the answer comes from somebody who has the key, or had the one before when he was asked."""
        given = headers.get(ANSWER_HEADER, "")
        if _same(given, answer_mac(self._key, nonce, status, body)):
            self._former = self._key
            return True
        return self._former is not self._key and _same(given, answer_mac(self._former, nonce, status, body))

    def learn(self, audience: str, now: float) -> None:
        """Take over what a signed refusal said."""
        self._audience, self._offset_seconds = audience, now - self._now()


class Verifier:
    """Checks signed calls to one program; `audience` is its life.

    `find_other` gives another key that is good for a caller, while his is being changed.
    """

    def __init__(self, find_key: FindKey, now: Callable[[], float], find_other: FindKey = lambda _: None) -> None:
        self._find_key, self._find_other, self._now = find_key, find_other, now
        self.audience = secrets.token_hex(8)
        self._seen: set[str] = set()
        self._seen_before: set[str] = set()
        self._turned_at = now()

    def verify(self, header: str, request: Request) -> Signed:
        """Who signed; raises NotLoggedIn, SignAgain, or TooMany when too many nonces are open."""
        parts = header.split(";")
        if len(parts) != 6 or parts[0] != VERSION or not parts[3].isascii() or not parts[3].isdigit():
            raise NotLoggedIn("the signature header is malformed")
        _, name, audience, at_ms, nonce, given = parts
        keys = [key for key in (self._find_key(name), self._find_other(name)) if key]
        covered = (name, audience, at_ms, nonce)
        key = next((key for key in keys or [bytes(32)] if _same(given, _mac(key, request, covered))), None)
        if key is None or not keys:
            raise NotLoggedIn("the signature is wrong: do both sides hold the same cluster secret?")
        now = self._now()
        signed = Signed(name, nonce, key)
        if audience != self.audience or abs(now - int(at_ms[:16]) / 1000) > WINDOW_SECONDS:
            raise SignAgain(signed, self.audience, now)
        self._refuse_replay(nonce, now)
        return signed

    def _refuse_replay(self, nonce: str, now: float) -> None:
        if now - self._turned_at > 2 * WINDOW_SECONDS:
            self._seen_before, self._seen, self._turned_at = self._seen, set(), now
        if nonce in self._seen or nonce in self._seen_before:
            raise NotLoggedIn("this signed request was already answered once")
        if len(self._seen) >= MAX_NONCES:
            raise TooMany("too many signed requests in a short time")
        self._seen.add(nonce)


class SignAgain(StaleSignature):
    """Remembers the signer, so that the refusal itself can be signed."""

    def __init__(self, signed: Signed, audience: str, now: float) -> None:
        super().__init__("sign again for this life and time", {"audience": audience, "now": now})
        self.signed = signed


def answer_mac(key: bytes, nonce: str, status: int, body: bytes) -> str:
    """The MAC of an answer, in hex."""
    digest = hashlib.sha256(body).digest()
    return hmac.digest(key, f"answer\n{nonce}\n{status}\n".encode() + digest, "sha256").hex()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _mac(key: bytes, request: Request, parts: tuple[str, ...]) -> str:
    digest = hashlib.sha256(request.body).hexdigest()
    covered = "\n".join((VERSION, *parts, request.method, request.path, request.query, digest))
    return hmac.digest(key, covered.encode("utf-8", "surrogateescape"), "sha256").hex()
