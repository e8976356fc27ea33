"""Who a request is from, and whether the thing it touches is theirs."""

from typing import Any

from kohakuriver.host.state import Host
from kohakuriver.host.store import tasks
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.errors import NotAllowed, NotFound
from kohakuriver.wire.serve import Identified, Identify, Incoming
from kohakuriver.wire.sign import REQUEST_HEADER, Verifier

LOCAL = Caller("local", Role.ADMIN)  # whoever reaches the port, while there are no accounts


def identifier(verifier: Verifier) -> Identify:
    """A signed request comes from the runner it names; any other from a person."""

    def identify(incoming: Incoming) -> Identified:
        header = incoming.headers.get(REQUEST_HEADER)
        if header is None:
            return Identified(LOCAL)
        signed = verifier.verify(header, incoming.signing)
        return Identified(Caller(signed.name, Role.NODE), signed)

    return identify


async def guard(host: Host, caller: Caller, owns: Ownership, asked: Any) -> None:
    """Raises when the thing is somebody else's; the role was checked before."""
    if owns is Ownership.NODE and asked.hostname != caller.name:
        raise NotAllowed(f"hostname: you are {caller.name}, not {asked.hostname}")
    if owns is Ownership.TASK_CONTROL and caller.role < Role.OPERATOR:
        task = await host.db.read(lambda tx: tasks.get(tx, asked.task_id))
        if task.owner != caller.name:
            raise NotFound(f"there is no task {asked.task_id}")
