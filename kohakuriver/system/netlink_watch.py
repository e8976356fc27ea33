"""A bell that rings when the kernel's network changed."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from kohakuriver.system.clock import Clock
from kohakuriver.system.loops import Wake

GROUPS = 0x1 | 0x4 | 0x10 | 0x40  # RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE of linux/rtnetlink.h
NEW_NEIGHBOR = 28  # RTM_NEWNEIGH comes with every answer to an ARP question, and nothing is lost by it
HEADER = struct.Struct("=IHHII")
MESSAGE_BYTES = 1 << 16
REST_SECONDS = 1.0


async def ring_on_changes(wake: Wake, clock: Clock) -> None:
    """Ring for ever, at most once a second; raises OSError when the kernel does not let us listen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as listener:
        listener.bind((0, GROUPS))
        while True:
            if await _matters(listener):
                wake.set()
                await clock.sleep(REST_SECONDS)


async def _matters(listener: socket.socket) -> bool:
    try:
        message = await asyncio.get_running_loop().sock_recv(listener, MESSAGE_BYTES)
    except BlockingIOError:
        return False
    except OSError:  # too many changes for its buffer: some were missed
        return True
    with suppress(BlockingIOError, OSError):
        while True:
            message += listener.recv(MESSAGE_BYTES)
    return any(kind != NEW_NEIGHBOR for kind in _kinds(message))


def _kinds(message: bytes) -> Iterator[int]:
    """The types of the netlink messages in a datagram (linux/netlink.h: each begins at a multiple of 4)."""
    at = 0
    while at + HEADER.size <= len(message):
        length, kind, *_ = HEADER.unpack_from(message, at)
        yield kind
        at += max(HEADER.size, (length + 3) & ~3)
