"""One signed call by a program that then ends."""

from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from kohakuriver.model.route import Route
from kohakuriver.wire.call import Peer
from kohakuriver.wire.pinning import context_for
from kohakuriver.wire.sign import Signer

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class At:
    """Where a program is, and by what its certificate is known: the CA it comes from, or its own fingerprint."""

    url: str
    ca_pem: str = ""
    own_fingerprint: str = ""

    def connector(self) -> aiohttp.TCPConnector:
        """Connections that are believed only so."""
        if self.own_fingerprint:
            return aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(bytes.fromhex(self.own_fingerprint)))
        return aiohttp.TCPConnector(ssl=context_for(self.ca_pem)) if self.ca_pem else aiohttp.TCPConnector()


async def call(at: At, signer: Signer, route: Route[Q, R], request: Q) -> R:
    """The typed answer of the program there; raises as `Peer.call` does."""
    async with aiohttp.ClientSession(connector=at.connector()) as http:
        return await Peer(http, at.url, signer).call(route, request)
