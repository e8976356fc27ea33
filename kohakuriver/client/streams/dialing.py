"""A command's sockets: opened at its host as whoever is logged in."""

from typing import Any, TypeVar
from urllib.parse import urlencode

from kohakuriver.client.session import Session
from kohakuriver.model import codec
from kohakuriver.model.errors import HostUnreachable
from kohakuriver.model.route import Channel
from kohakuriver.wire import raw
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.refusals import error_of

Q = TypeVar("Q")


async def dial(session: Session, channel: Channel[Q], request: Q, protocol: str) -> RawSocket:
    """An open socket; raises what the host refused with, HostUnreachable when it cannot be reached."""
    path, rest = channel.split(codec.encoder(channel.takes, compact=True)(request))
    query = urlencode({name: _plain(value) for name, value in rest.items()})
    address = raw.Address(session.settings.host, session.settings.port, session.tls_context())
    try:
        answered = await raw.dial(address, f"{path}?{query}" if query else path, session.authorization(), protocol)
    except OSError as broken:
        raise session.unreachable(broken) from broken
    if answered.socket is not None:
        return answered.socket
    refused = error_of(answered.status, answered.body)
    if answered.status >= 500 and refused.code == "node_unreachable" and "not ours" in str(refused):
        raise HostUnreachable(f"{session.address} answers, but not as a KohakuRiver host: check --host and --port")
    raise refused


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
