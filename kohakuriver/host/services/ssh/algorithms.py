"""Which algorithms SSH speaks here: few, modern, and safe from who records today and computes later."""

from hashlib import sha512
from typing import Any

from asyncssh.crypto import Curve25519DH
from asyncssh.kex import get_kex_algs, register_kex_alg
from asyncssh.kex_dh import _KexHybridECDH

from kohakuriver.host.services.ssh import sntrup

KEY_EXCHANGE = ("mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com")
OLDER_KEY_EXCHANGE = ("curve25519-sha256", "curve25519-sha256@libssh.org")
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
LOGIN_SECONDS, KEEPALIVE_SECONDS, MISSED_KEEPALIVES = 20.0, 15.0, 3
VERSION = "KohakuRiver"


class _Sntrup:
    """What the key exchange of asyncssh asks of a scheme; it has this one only where liboqs is installed."""

    pubkey_bytes, ciphertext_bytes = sntrup.PUBLIC_BYTES, sntrup.CIPHERTEXT_BYTES

    def __init__(self, name: bytes) -> None:
        """There is one of that name."""

    def encaps(self, peer_public: bytes) -> tuple[bytes, bytes]:
        return sntrup.encapsulate(peer_public)


def options(older_clients: bool) -> dict[str, Any]:
    """What every SSH server of ours has in common, as asyncssh takes it."""
    _make_known()
    return {
        "config": [],
        "kex_algs": [*KEY_EXCHANGE, *(OLDER_KEY_EXCHANGE if older_clients else ())],
        "encryption_algs": CIPHERS,
        "mac_algs": MACS,
        "compression_algs": None,
        "signature_algs": SIGNATURES,
        "server_version": VERSION,
        "login_timeout": LOGIN_SECONDS,
        "keepalive_interval": KEEPALIVE_SECONDS,
        "keepalive_count_max": MISSED_KEEPALIVES,
        "gss_host": None,
        "gss_kex": False,
        "gss_auth": False,
        "host_based_auth": False,
        "password_auth": False,
        "x509_trusted_certs": None,
        "agent_forwarding": False,
        "x11_forwarding": False,
        "allow_scp": False,
        "line_editor": False,
        "encoding": None,
    }


def _make_known() -> None:
    for name in KEY_EXCHANGE:
        if name.encode() not in get_kex_algs():
            register_kex_alg(name.encode(), _KexHybridECDH, sha512, (_Sntrup, b"sntrup761", Curve25519DH), False)
