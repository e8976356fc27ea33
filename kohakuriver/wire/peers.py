"""All the runners a host calls: one connection pool, each runner's own signing key."""

from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime

HOST_NAME = "host"


@dataclass(slots=True)
class RunnerPeers:
    """One peer for each node; `key_of` gives the key that a node has now, or raises when it has none."""

    http: aiohttp.ClientSession
    key_of: Callable[[str], bytes]
    _peers: dict[str, tuple[str, bytes, Peer]] = field(default_factory=dict, repr=False)

    def at(self, hostname: str, url: str) -> Peer:
        """The runner of that node, at this address; raises what `key_of` raises."""
        key, known = self.key_of(hostname), self._peers.get(hostname)
        if known is not None and known[:2] == (url, key):
            return known[2]
        peer = Peer(self.http, url, Signer(HOST_NAME, key, SteadyTime()))
        self._peers[hostname] = (url, key, peer)
        return peer
