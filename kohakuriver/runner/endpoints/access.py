"""Only the host may ask, and only signed; containers may dial in, each with its own signature."""

from typing import Any

from kohakuriver.model.access import NOBODY, Caller, Ownership, Role
from kohakuriver.model.errors import NotAllowed, NotLoggedIn
from kohakuriver.runner.host_keys import HOST_NAME
from kohakuriver.runner.state import Runner
from kohakuriver.runner.tunnel_door import HEADER, TunnelDoor
from kohakuriver.wire.serve import Identified, Identify, Incoming
from kohakuriver.wire.sign import REQUEST_HEADER, Verifier


def identifier(verifier: Verifier, door: TunnelDoor) -> Identify:
    """A signed request comes from the host, or from the container that has the signature; any other from nobody."""

    def identify(incoming: Incoming) -> Identified:
        if HEADER in incoming.headers:
            return Identified(Caller(door.recognize(incoming.headers[HEADER]), Role.ANONY))
        header = incoming.headers.get(REQUEST_HEADER)
        if header is None:
            return Identified(NOBODY)
        signed = verifier.verify(header, incoming.signing)
        return Identified(Caller(signed.name, Role.NODE), signed)

    return identify


async def guard(runner: Runner, caller: Caller, owns: Ownership, asked: Any) -> None:
    """Raises NotAllowed for anybody but the host, or the container that the entry is for."""
    if owns is Ownership.CONTAINER:
        if caller.name != asked.container:
            raise NotLoggedIn("only the container itself may dial, with its signature")
    elif owns is not Ownership.HOST or caller.name != HOST_NAME:
        raise NotAllowed("only the host may ask this")
