"""By what the host knows an order of its own again when its rows do not: a proof that goes along with each order."""

import hashlib
import hmac
from dataclasses import dataclass, field

from kohakuriver.model.report import WorkloadState


@dataclass(frozen=True, slots=True)
class Claims:
    """Proofs under a key that outlives the database, and so also one that was restored from an old copy."""

    key: bytes = field(repr=False)

    @classmethod
    def under(cls, master: bytes) -> "Claims":
        """With a key made from the host's master key."""
        return cls(hmac.digest(master, b"kohakuriver attempt claim", hashlib.sha256))

    def proof(self, task_id: int, attempt: int, hostname: str) -> str:
        """That this attempt was given to this node."""
        return hmac.new(self.key, f"{task_id}\n{attempt}\n{hostname}".encode(), hashlib.sha256).hexdigest()

    def is_good(self, state: WorkloadState, hostname: str) -> bool:
        """Whether a node proves that it was given the attempt that it reports."""
        given = state.claim.proof if state.claim else ""
        return hmac.compare_digest(given.encode(), self.proof(state.task_id, state.attempt, hostname).encode())
