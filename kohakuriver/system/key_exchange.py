"""Agrees on a secret over a line that others may listen to (X25519, RFC 7748)."""

from kohakuriver.model.errors import BadRequest


class Exchange:
    """Our half, good for one exchange; making it is blocking, because the library takes a while to load."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._ours = X25519PrivateKey.generate()
        self.public = self._ours.public_key().public_bytes_raw().hex()

    def shared(self, public: str) -> bytes:
        """What only we and whoever made the other half know; raises BadRequest for a half that leaves no secret."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            return self._ours.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
        except ValueError:
            raise BadRequest("public: this half of an exchange leaves no secret") from None
