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
    _peers: dict[str, tuple[tuple[str, bytes, str], Peer]] = field(default_factory=dict, repr=False)

    def at(self, hostname: str, url: str, fingerprint: str = "") -> Peer:
        """The runner of that node, at this address, with this certificate; raises what `key_of` raises."""
        wanted, known = (url, self.key_of(hostname), fingerprint), self._peers.get(hostname)
        if known is not None and known[0] == wanted:
            return known[1]
        peer = Peer(self.http, url, Signer(HOST_NAME, wanted[1], SteadyTime()), fingerprint)
        self._peers[hostname] = (wanted, peer)
        return peer
