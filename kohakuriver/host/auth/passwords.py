"""Passwords: bcrypt, in a few threads of its own, with a bound on how many wait for them.

bcrypt reads 72 bytes. A longer password is hashed first, and the stored text says which way was taken:
`bcrypt:$2b$…` or `sha384-bcrypt:$2b$…`. Text is brought to NFKC, so that one password typed on two keyboards is one.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from kohakuriver.model.errors import TooMany

COST = 12
MOST_BYTES = 72
MOST_WAITING = 64
PLAIN, HASHED_FIRST = "bcrypt", "sha384-bcrypt"
DOMAIN = b"kohakuriver password\0"


class Passwords:
    """Hashes and compares; `close` it when the host ends."""

    def __init__(self, cost: int = COST, most_waiting: int = MOST_WAITING) -> None:
        self._cost, self._most_waiting = cost, most_waiting
        threads = max(1, min(4, (os.cpu_count() or 2) // 2))  # never every core: the cluster goes on meanwhile
        self._threads = ThreadPoolExecutor(threads, "passwords")
        self._waiting = 0
        self._nobodys = f"{PLAIN}:{bcrypt.gensalt(cost).decode()}{'.' * 31}"

    async def hash(self, password: str) -> str:
        """The text to store; raises TooMany when too many wait already."""
        text, scheme = _prepared(password)
        return await self._run(text, scheme, None)

    async def verify(self, password: str, stored: str) -> bool:
        """Whether it is the password; as slow when there is none (`stored` empty). Raises TooMany."""
        text, scheme = _prepared(password)
        known, _, hashed = (stored or self._nobodys).partition(":")
        found = await self._run(text, known, hashed)
        return hmac.compare_digest(found, f"{scheme}:{hashed}") and bool(stored)

    def close(self) -> None:
        """Let the threads end; what waits is given up."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, text: bytes, scheme: str, hashed: str | None) -> str:
        if self._waiting >= self._most_waiting:
            raise TooMany("too many logins at once; try again shortly", {"retry_after_seconds": 5})
        self._waiting += 1
        try:
            salt = hashed or self._cost
            return await asyncio.get_running_loop().run_in_executor(self._threads, _hash, text, scheme, salt)
        finally:
            self._waiting -= 1


def _prepared(password: str) -> tuple[bytes, str]:
    """What bcrypt is to read, and the name of the way."""
    text = unicodedata.normalize("NFKC", password).encode()
    if len(text) <= MOST_BYTES:
        return text, PLAIN
    return base64.b64encode(hashlib.sha384(DOMAIN + text).digest()), HASHED_FIRST


def _hash(text: bytes, scheme: str, salt: int | str) -> str:
    """Hash with a new salt of that cost, or with the salt of an earlier hash."""
    using = bcrypt.gensalt(salt) if isinstance(salt, int) else salt.encode()
    return f"{scheme}:{bcrypt.hashpw(text, using).decode()}"
