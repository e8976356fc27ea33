"""All the runners a host calls: one connection pool, one signing key."""

from dataclasses import dataclass, field

import aiohttp

from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime

HOST_NAME = "host"


@dataclass(slots=True)
class RunnerPeers:
    """One peer for each address; `secret` signs every call."""

    http: aiohttp.ClientSession
    secret: bytes
    peers: dict[str, Peer] = field(default_factory=dict)

    def at(self, url: str) -> Peer:
        """The runner at this address."""
        if url not in self.peers:
            self.peers[url] = Peer(self.http, url, Signer(HOST_NAME, self.secret, SteadyTime()))
        return self.peers[url]
