"""The key between this runner and its host, and the one that is to follow it, while that is being agreed on.

The file is written before anybody is told, so whoever is killed goes on with a key that the other side takes.
"""

import asyncio
import hmac
from dataclasses import dataclass, field, replace

from kohakuriver.model.errors import Conflict
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner import membership
from kohakuriver.runner.membership import Membership
from kohakuriver.system.key_exchange import Exchange
from kohakuriver.wire import joining
from kohakuriver.wire.joining import Agreed
from kohakuriver.wire.sign import Signer

HOST_NAME = "host"


@dataclass(slots=True)
class HostKeys:
    """`key` is in use both ways; calls of the host signed with `coming` are taken as well."""

    settings: RunnerSettings
    signer: Signer
    key: bytes = field(repr=False)
    coming: bytes | None = field(repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def of_caller(self, name: str) -> bytes | None:
        """The key by which somebody of that name signs: nobody but the host has one here."""
        return self.key if name == HOST_NAME else None

    def coming_of_caller(self, name: str) -> bytes | None:
        """Another one by which he may."""
        return self.coming if name == HOST_NAME else None

    async def offer(self, public: str) -> str:
        """Agree on a key by the host's half of an exchange; our half. Raises Conflict when there is no key of our own."""
        async with self._turn:
            known, exchange = await asyncio.to_thread(self._known), await asyncio.to_thread(Exchange)
            agreed = Agreed(known.cluster_id, known.hostname, exchange.public, public)
            coming = joining.exchanged_key(self.key, exchange.shared(public), agreed)
            kept = replace(known, coming=coming.hex())
            await asyncio.to_thread(membership.keep, self.settings, kept)
            self.coming = coming
            return exchange.public

    async def take(self, proof: str) -> None:
        """Use the key that was agreed on, if the host shows that it has it; raises Conflict when it is another."""
        async with self._turn:
            known = await asyncio.to_thread(self._known)
            if _proves(proof, self.key, known.hostname):
                return
            if self.coming is None or not _proves(proof, self.coming, known.hostname):
                raise Conflict("proof: that is not the key that was agreed on")
            kept = replace(known, key=self.coming.hex(), coming="")
            await asyncio.to_thread(membership.keep, self.settings, kept)
            self.key, self.coming = self.coming, None
            self.signer.use(self.key)

    def _known(self) -> Membership:
        known = membership.find(self.settings)
        if known is None:
            raise Conflict("this runner signs with the cluster's secret: it has no key of its own")
        return known


def _proves(proof: str, key: bytes, hostname: str) -> bool:
    return hmac.compare_digest(proof, joining.possession(key, hostname, joining.TAKING))
