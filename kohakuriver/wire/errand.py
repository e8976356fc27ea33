"""One signed call by a program that then ends."""

from typing import TypeVar

import aiohttp

from kohakuriver.model.route import Route
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer

Q = TypeVar("Q")
R = TypeVar("R")


async def call(url: str, signer: Signer, route: Route[Q, R], request: Q) -> R:
    """The typed answer of the program at `url`; raises as `Peer.call` does."""
    async with aiohttp.ClientSession() as http:
        return await Peer(http, url, signer).call(route, request)
