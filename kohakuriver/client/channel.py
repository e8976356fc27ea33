"""A channel of the host, opened by a command; and carried, if it likes, between its standard input and output."""

import asyncio
import fcntl
import os
import sys
from contextlib import suppress
from typing import TypeVar

from kohakuriver.client.session import Session, query_of
from kohakuriver.model import codec
from kohakuriver.model.route import Channel
from kohakuriver.wire import raw
from kohakuriver.wire.line import Line
from kohakuriver.wire.plain import PlainSocket
from kohakuriver.wire.raw import RawSocket
from kohakuriver.wire.refusals import error_of
from kohakuriver.wire.relay import relay
from kohakuriver.wire.sockets import error_in

Q = TypeVar("Q")
PIPE_BYTES = 1 << 20


async def open_channel(session: Session, channel: Channel[Q], request: Q, protocol: str = "") -> RawSocket:
    """A socket to the host; raises what it refuses with, HostUnreachable when it is not there."""
    path, rest = channel.split(codec.encoder(channel.takes, compact=True)(request))
    target = f"{path}?{query_of(rest)}" if rest else path
    address = raw.Address(session.settings.host, session.settings.port, session.tls_context())
    try:
        answered = await raw.dial(address, target, session.authorization(), protocol)
    except OSError as broken:
        raise session.unreachable(broken) from broken
    if answered.socket is None:
        raise error_of(answered.status, answered.body)
    return answered.socket


async def carry_standard_streams(socket: RawSocket) -> None:
    """Standard input goes in, what comes out goes to standard output; raises the error that the socket ended with."""
    loop = asyncio.get_running_loop()
    _, given = await loop.connect_read_pipe(Line, os.fdopen(os.dup(sys.stdin.fileno()), "rb", 0))
    _, wanted = await loop.connect_write_pipe(Line, os.fdopen(os.dup(sys.stdout.fileno()), "wb", 0))
    with suppress(OSError):
        fcntl.fcntl(sys.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    ended_well = await relay(socket, PlainSocket(given, wanted))
    error = error_in(socket.close_code, socket.close_reason)
    if not ended_well and socket.line.was_left and error is not None:  # else nobody listens here any more
        raise error
