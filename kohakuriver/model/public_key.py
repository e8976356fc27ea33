"""SSH public keys as people paste them: one line of `ssh-keygen`, checked and put into one form.

Formats: RFC 4253 section 6.6 (rsa), RFC 8709 (ed25519), OpenSSH's PROTOCOL.u2f (keys in hardware).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

MOST_CHARACTERS = 4096
LEAST_RSA_BITS = 3072
ED25519, RSA = "ssh-ed25519", "ssh-rsa"
HARDWARE_ED25519, HARDWARE_ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
PARTS = {ED25519: 2, RSA: 3, HARDWARE_ED25519: 3, HARDWARE_ECDSA: 4}
MAKE_ONE = "make one with `ssh-keygen -t ed25519`"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may be used; `text` is `ALGORITHM BASE64`, the same for the same key wherever it comes from."""

    algorithm: str
    text: str
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return fingerprint_of(base64.b64decode(self.text.partition(" ")[2]))


def fingerprint_of(blob: bytes) -> str:
    """The name of a key by which people compare it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def read_public_key(line: str) -> PublicKey:
    """The key in a line of a `.pub` file; raises ValueError with what is wrong with it."""
    if "PRIVATE KEY" in line:
        raise ValueError("this is a private key; it stays with you: the public one is in the file that ends in .pub")
    words = line.strip().split(None, 2)
    if "\n" in line.strip() or len(words) < 2:
        raise ValueError("not one line of a .pub file (ALGORITHM BASE64 [COMMENT])")
    algorithm, encoded = words[0], words[1]
    if algorithm not in PARTS:
        raise ValueError(f"keys of the kind {algorithm[:40]!r} are not accepted; {MAKE_ONE}")
    parts = list(_parts(_decoded(encoded)))
    if len(parts) != PARTS[algorithm] or parts[0] != algorithm.encode():
        raise ValueError(f"the key is not whole, or not of the kind {algorithm}")
    _check(algorithm, parts)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return PublicKey(algorithm, f"{algorithm} {base64.b64encode(blob).decode()}", words[2] if len(words) > 2 else "")


def check_public_key(line: str) -> None:
    """Raise ValueError for what is no key that may be used."""
    read_public_key(line)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not BASE64; was it cut off?") from None


def _parts(blob: bytes) -> Iterator[bytes]:
    """The strings of a key, each behind its length; raises ValueError when one is not whole."""
    while blob:
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size:
            raise ValueError("the key is cut off")
        yield blob[4 : 4 + size]
        blob = blob[4 + size :]


def _check(algorithm: str, parts: list[bytes]) -> None:
    if algorithm == RSA:
        exponent, modulus = (int.from_bytes(part, "big") for part in parts[1:])
        if modulus.bit_length() < LEAST_RSA_BITS or modulus % 2 == 0:
            raise ValueError(f"RSA of {modulus.bit_length()} bits; at least {LEAST_RSA_BITS} are needed; {MAKE_ONE}")
        if modulus.bit_length() > 16384 or exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
            raise ValueError(f"an RSA key that cannot be; {MAKE_ONE}")
    elif (
        algorithm in (ED25519, HARDWARE_ED25519)
        and len(parts[1]) != 32
        or algorithm == HARDWARE_ECDSA
        and (parts[1], len(parts[2])) != (b"nistp256", 65)
    ):
        raise ValueError("the key is not whole")
