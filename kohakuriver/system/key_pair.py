"""Makes SSH key pairs."""

from typing import NamedTuple


class KeyPair(NamedTuple):
    """An Ed25519 pair: the private half as `ssh -i` reads it, the public half as one line of a key file."""

    private: str
    public: str


def make_key_pair() -> KeyPair:
    """A new pair; blocking, because the library takes a while to load."""
    from cryptography.hazmat.primitives import serialization as as_bytes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(as_bytes.Encoding.PEM, as_bytes.PrivateFormat.OpenSSH, as_bytes.NoEncryption())
    public = key.public_key().public_bytes(as_bytes.Encoding.OpenSSH, as_bytes.PublicFormat.OpenSSH)
    return KeyPair(private.decode(), public.decode())
