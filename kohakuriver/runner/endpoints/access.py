"""Only the host may ask, and only signed."""

from typing import Any

from kohakuriver.model.access import NOBODY, Caller, Ownership, Role
from kohakuriver.model.errors import NotAllowed
from kohakuriver.runner.host_keys import HOST_NAME
from kohakuriver.runner.state import Runner
from kohakuriver.wire.serve import Identified, Identify, Incoming
from kohakuriver.wire.sign import REQUEST_HEADER, Verifier


def identifier(verifier: Verifier) -> Identify:
    """A signed request comes from the host; whatever is not signed comes from nobody."""

    def identify(incoming: Incoming) -> Identified:
        header = incoming.headers.get(REQUEST_HEADER)
        if header is None:
            return Identified(NOBODY)
        signed = verifier.verify(header, incoming.signing)
        return Identified(Caller(signed.name, Role.NODE), signed)

    return identify


async def guard(runner: Runner, caller: Caller, owns: Ownership, asked: Any) -> None:
    """Raises NotAllowed for anybody but the host."""
    if owns is not Ownership.HOST or caller.name != HOST_NAME:
        raise NotAllowed("only the host may ask this")
