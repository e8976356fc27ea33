"""Which container may dial the runner, and how it knows: a signature for its name, which it finds in its environment."""

import hashlib
import hmac
from dataclasses import dataclass

from kohakuriver.model.errors import NotLoggedIn

HEADER = "X-Kohakuriver-Container"  # NAME;SIGNATURE
PATH = "/ws/tunnel/"
_PURPOSE = b"kohakuriver tunnel\0"


@dataclass(slots=True)
class TunnelDoor:
    """Where containers dial; without a `key` none may. `url` stands once the runner listens, `fingerprint` with TLS."""

    key: bytes = b""
    url: str = ""
    fingerprint: str = ""

    def variables(self, container: str) -> dict[str, str]:
        """What a container needs to dial; nothing when it may not."""
        if not self.key or not self.url:
            return {}
        found = {
            "KOHAKURIVER_TUNNEL_URL": f"{self.url}{PATH}{container}",
            "KOHAKURIVER_TUNNEL_SIGNATURE": f"{container};{self._signature(container)}",
        }
        return found | ({"KOHAKURIVER_TUNNEL_FINGERPRINT": self.fingerprint} if self.fingerprint else {})

    def recognize(self, header: str) -> str:
        """The name of the container that sends this; raises NotLoggedIn."""
        name, _, signature = header.partition(";")
        good = self._signature(name) if self.key else ""
        if not hmac.compare_digest(good.encode(), signature.encode()) or not self.key:
            raise NotLoggedIn("this signature is not good here")
        return name

    def _signature(self, container: str) -> str:
        return hmac.new(self.key, _PURPOSE + container.encode(), hashlib.sha256).hexdigest()
