"""What a join token is, and the key that both sides make of it; its secret never travels and is nowhere kept.

The host has one master key, in a file of its own. From it follows the secret of every join token by the token's id, and
from that, the names of cluster and node and a nonce of each side the key of one runner. So the database holds ids and
nonces only: a stolen copy of it opens nothing. HMAC-SHA256 throughout, each use under a label of its own (as in HKDF,
RFC 5869: the keys are uniformly random, so the extract step is not needed).

A key that is in use can be exchanged for another without a token. Both sides agree on that by an exchange of public
halves, signed with the key before, so that neither a listener nor a former key opens it. The host then keeps it sealed:
under a pad of its own, drawn from the master key.

A token reads `krj_ID_SECRET` (hex), and `krj_ID_SECRET_FINGERPRINT` when the host speaks TLS: that of its CA (SHA-256).
"""

import hmac
from dataclasses import dataclass, field

from kohakuriver.model.errors import BadRequest

PREFIX = "krj"
SECRET_BYTES = 32
MASTER_FILE = "join_key"
JOINING = "join:"  # no node can have a name with a colon
TAKING = "taking"  # in the place of a nonce, where a key is shown to be the one that was agreed on
CONSOLE = "host:console"  # whoever can read the master key, on the host's own machine


@dataclass(frozen=True, slots=True)
class Token:
    """A join token taken apart."""

    join_id: int
    secret: bytes = field(repr=False)
    ca_fingerprint: str = ""

    @property
    def text(self) -> str:
        """The one line that a person carries to the node."""
        fingerprint = f"_{self.ca_fingerprint}" if self.ca_fingerprint else ""
        return f"{PREFIX}_{self.join_id}_{self.secret.hex()}{fingerprint}"

    @property
    def signs_as(self) -> str:
        """The name under which a machine signs that has nothing but this token."""
        return f"{JOINING}{self.join_id}"


@dataclass(frozen=True, slots=True)
class Agreed:
    """All that a runner's key depends on besides the secret; after an exchange the public halves stand for nonces."""

    cluster_id: str
    hostname: str
    runner_nonce: str
    host_nonce: str


def parse_token(text: str) -> Token:
    """The token that a text is; raises BadRequest, which does not repeat it."""
    parts = text.strip().split("_")
    wrong = BadRequest("TOKEN: that is not a join token (`kohakuriver host join-token` prints one)")
    if len(parts) not in (3, 4) or parts[0] != PREFIX or not (parts[1].isascii() and parts[1].isdigit()):
        raise wrong
    try:
        secret, fingerprint = bytes.fromhex(parts[2]), bytes.fromhex("".join(parts[3:]))
    except ValueError:
        raise wrong from None
    if len(secret) != SECRET_BYTES or len(fingerprint) not in (0, SECRET_BYTES) or len(parts[1]) > 19:
        raise wrong
    return Token(int(parts[1]), secret, fingerprint.hex())


def join_id_of(name: str) -> int | None:
    """The id of the token that signs under a name; None when it is none's."""
    number = name.removeprefix(JOINING)
    return int(number) if name != number and number.isascii() and number.isdigit() and len(number) < 20 else None


def token_secret(master: bytes, join_id: int) -> bytes:
    """The secret of the join token with that id."""
    return _derived(master, "join token", str(join_id))


def console_key(master: bytes) -> bytes:
    """What the host's own commands sign with."""
    return _derived(master, "console")


def runner_key(secret: bytes, agreed: Agreed) -> bytes:
    """The key of one runner, which signs in both directions."""
    return _derived(secret, "runner key", agreed.cluster_id, agreed.hostname, agreed.runner_nonce, agreed.host_nonce)


def exchanged_key(before: bytes, shared: bytes, agreed: Agreed) -> bytes:
    """The key of one runner after an exchange: out of the one before it and what the two halves share."""
    extracted = hmac.digest(before, shared, "sha256")  # as HKDF does with what is not uniformly random
    return _derived(
        extracted, "exchanged key", agreed.cluster_id, agreed.hostname, agreed.runner_nonce, agreed.host_nonce
    )


def sealed(master: bytes, agreed: Agreed, key: bytes) -> bytes:
    """A key under its pad, or out of it again; the host's half of an exchange is new each time, and so is the pad."""
    pad = _derived(master, "pad", agreed.hostname, agreed.runner_nonce, agreed.host_nonce)
    return bytes(a ^ b for a, b in zip(key, pad, strict=True))


def possession(key: bytes, hostname: str, runner_nonce: str) -> str:
    """Shows that somebody has a key, for one attempt to join, in hex."""
    return _derived(key, "possession", hostname, runner_nonce).hex()


def _derived(key: bytes, label: str, *parts: str) -> bytes:
    return hmac.digest(key, "\n".join(("kohakuriver v1", label, *parts)).encode(), "sha256")
